import math

from jaxtyping import Float
from torch import Tensor

from lightning_xt.generation.filters.base import Filter
from lightning_xt.generation.filters.vocabulary_checks import rule_out
from lightning_xt.generation.history import History


class EpsilonCutoff(Filter):
    """Drops the words less probable than epsilon; where all are, the likeliest stays.

    Hewitt, Manning and Liang, 2022. https://arxiv.org/abs/2210.15191

    Args:
        epsilon: least probability of a word, from 0 to 1.
    """

    def __init__(self, epsilon: int | float) -> None:
        if not 0 <= epsilon <= 1:
            raise ValueError(f"filters: EpsilonCutoff has epsilon {epsilon}, which must be from 0 to 1")
        self.epsilon = epsilon

    def __call__(self, logits: Float[Tensor, "b v"], history: History) -> Float[Tensor, "b v"]:
        if self.epsilon == 0:
            return logits
        return rule_out(logits, logits.log_softmax(dim=-1) < math.log(self.epsilon))
