import math

from lightning_xt.generation.filters.base import Filter, Logits
from lightning_xt.generation.filters.vocabulary_checks import mask_tokens
from lightning_xt.generation.history import History
from lightning_xt.system.option_checks import check_option


class EpsilonCutoff(Filter):
    """Drop tokens with probability below `epsilon`; always keep the most likely.

    Hewitt, Manning and Liang, 2022. https://arxiv.org/abs/2210.15191

    Args:
        epsilon: least probability of a token, from 0 to 1.
    """

    options = ("epsilon",)

    def __init__(self, epsilon: int | float) -> None:
        check_option("filters: EpsilonCutoff", "epsilon", epsilon, least=0, most=1)
        self.epsilon = epsilon

    def __call__(self, logits: Logits, history: History) -> Logits:
        if self.epsilon == 0:
            return logits
        return mask_tokens(logits, logits.log_softmax(dim=-1) < math.log(self.epsilon))
