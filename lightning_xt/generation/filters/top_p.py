from jaxtyping import Float
from torch import Tensor

from lightning_xt.generation.filters.base import Filter
from lightning_xt.generation.history import History


class TopP(Filter):
    """Keeps the smallest set of likeliest words whose probability reaches p (nucleus sampling).

    Holtzman et al., 2019. https://arxiv.org/abs/1904.09751

    Args:
        p: probability the kept words must reach together, above 0 and at most 1.
    """

    def __init__(self, p: int | float) -> None:
        if not 0 < p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, not {p}")
        self.p = p

    def __call__(self, logits: Float[Tensor, "b v"], history: History) -> Float[Tensor, "b v"]:
        if self.p == 1:
            # In floating point the sum may reach 1 before the last word.
            return logits
        ordered, order = logits.sort(dim=-1, descending=True)
        probabilities = ordered.softmax(dim=-1)
        before = probabilities.cumsum(dim=-1) - probabilities
        drop = (before >= self.p).scatter(-1, order, before >= self.p)
        return logits.masked_fill(drop, float("-inf"))
