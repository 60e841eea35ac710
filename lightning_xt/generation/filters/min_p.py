import math

from jaxtyping import Float
from torch import Tensor

from lightning_xt.generation.filters.base import Filter
from lightning_xt.generation.history import History


class MinP(Filter):
    """Keeps the words at least p times as probable as the likeliest.

    Nguyen et al., 2024. https://arxiv.org/abs/2407.01082

    Args:
        p: share of the highest probability that a word must have, from 0 to 1.
    """

    def __init__(self, p: int | float) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"min_p must be from 0 to 1, not {p}")
        self.p = p

    def __call__(self, logits: Float[Tensor, "b v"], history: History) -> Float[Tensor, "b v"]:
        if self.p == 0:
            return logits
        return logits.masked_fill(logits < logits.amax(dim=-1, keepdim=True) + math.log(self.p), float("-inf"))
