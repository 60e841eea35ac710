import math

from jaxtyping import Float
from torch import Tensor

from lightning_xt.generation.filters.base import Filter
from lightning_xt.generation.filters.vocabulary_checks import rule_out
from lightning_xt.generation.history import History


class TopA(Filter):
    """Keeps the words at least as probable as a share of a power of the highest probability.

    Proposed in https://github.com/BlinkDL/RWKV-LM, with a ratio of 0.2. The surer the model is of its likeliest word,
    the fewer others stay. Where all would go, as they may with a power below 1, the likeliest stays.

    Args:
        ratio: share of the power, from 0 to 1.
        power: of the highest probability, at least 0; with 1 it is the rule of MinP, with 0 that of EpsilonCutoff.
    """

    def __init__(self, ratio: int | float = 0.02, power: int | float = 2.0) -> None:
        if not 0 <= ratio <= 1:
            raise ValueError(f"filters: TopA has ratio {ratio}, which must be from 0 to 1")
        if not 0 <= power < math.inf:
            raise ValueError(f"filters: TopA has power {power}, which must be a number of at least 0")
        self.ratio, self.power = ratio, power

    def __call__(self, logits: Float[Tensor, "b v"], history: History) -> Float[Tensor, "b v"]:
        if self.ratio == 0:
            return logits
        log_probs = logits.log_softmax(dim=-1)
        least = self.power * log_probs.amax(dim=-1, keepdim=True) + math.log(self.ratio)
        return rule_out(logits, log_probs < least)
