import torch
from jaxtyping import Float
from torch import Tensor

from lightning_xt.generation.filters.base import Filter
from lightning_xt.generation.filters.vocabulary_checks import rule_out
from lightning_xt.generation.history import History


class MinLength(Filter):
    """Rules the end out while a text is short; without an end it changes nothing.

    Where no other word is left, the end stays.

    Args:
        length: tokens to draw before the end may be drawn, at least 0.
    """

    def __init__(self, length: int) -> None:
        if length < 0:
            raise ValueError(f"filters: MinLength has length {length}, which must be at least 0")
        self.length = length

    def __call__(self, logits: Float[Tensor, "b v"], history: History) -> Float[Tensor, "b v"]:
        if history.end is None:
            return logits
        end = torch.arange(logits.shape[-1], device=logits.device) == history.end
        return rule_out(logits, end & (history.lengths - history.prompts < self.length)[:, None])
