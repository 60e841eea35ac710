import math

from lightning_xt.generation.filters.base import Filter, Logits
from lightning_xt.generation.filters.vocabulary_checks import mask_tokens
from lightning_xt.generation.history import History
from lightning_xt.system.option_checks import check_option


class TopA(Filter):
    """Keep tokens with at least `ratio` times a power of the highest probability.

    Proposed in https://github.com/BlinkDL/RWKV-LM, with a ratio of 0.2. The more certain the model is of its most
    likely token, the fewer others stay. If none would stay, as can happen with a power below 1, the most likely does.
    In x-transformers: filter_logits_fn, filter_kwargs.

    Args:
        ratio: factor of the power, from 0 to 1.
        power: exponent of the highest probability, at least 0; 1 gives MinP, 0 gives EpsilonCutoff.
    """

    options = ("ratio", "power")

    def __init__(self, ratio: int | float = 0.02, power: int | float = 2.0) -> None:
        check_option("filters: TopA", "ratio", ratio, least=0, most=1)
        check_option("filters: TopA", "power", power, least=0, below=math.inf)
        self.ratio, self.power = ratio, power

    def __call__(self, logits: Logits, history: History) -> Logits:
        if self.ratio == 0:
            return logits
        log_probs = logits.log_softmax(dim=-1)
        least = self.power * log_probs.amax(dim=-1, keepdim=True) + math.log(self.ratio)
        return mask_tokens(logits, log_probs < least)
