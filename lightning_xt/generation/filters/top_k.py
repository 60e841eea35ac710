from jaxtyping import Float
from torch import Tensor

from lightning_xt.generation.filters.base import Filter
from lightning_xt.generation.history import History


class TopK(Filter):
    """Keeps the likeliest words, and all that are as likely as the last of them.

    Fan, Lewis and Dauphin, 2018. https://arxiv.org/abs/1805.04833

    Args:
        k: words to keep.
    """

    def __init__(self, k: int) -> None:
        if k < 1:
            raise ValueError(f"top_k must be at least 1, not {k}")
        self.k = k

    def __call__(self, logits: Float[Tensor, "b v"], history: History) -> Float[Tensor, "b v"]:
        least = logits.topk(min(self.k, logits.shape[-1]), dim=-1).values[:, -1:]
        return logits.masked_fill(logits < least, float("-inf"))
