"""The contract of a normalizer: from scores to weights, which are 0 for hidden pairs."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.core.where import Where


class Normalizer(nn.Module, ABC):
    """Map from the scores of a query to the weights of its keys."""

    backends: ClassVar[frozenset[str]] = frozenset({"explicit"})
    """Backends that give exactly these weights."""

    looks_back: ClassVar[bool] = False
    """True if a variant counts from a query back to its keys, so that no query may see a later key."""

    signed: ClassVar[bool] = False
    """True if weights may be negative."""
    drops_negative: ClassVar[bool] = False
    """True if a score below 0 gets no weight."""
    sees_ahead: ClassVar[bool] = False
    """True if the weights of a token depend on later tokens, so that a variant serves encoders only."""

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, scores: Float[Tensor, "b h i j"], mask: Bool[Tensor, "#b #h i j"]) -> Float[Tensor, "b h i j"]:
        """Compute the weights.

        Args:
            scores: scores of all pairs, hidden ones included.
            mask: True for visible pairs.
        """

    def get_sinks(self) -> Float[Tensor, " h"] | None:
        """Return the scores, per head, of a key that takes weight and gathers nothing. None = there is no such key."""
        return None

    def weigh(self, scores: Float[Tensor, "b h i j"], where: Where) -> Float[Tensor, "b h i j"]:
        """Compute the weights; a variant overrides this if it reads positions."""
        weights: Tensor = self(scores, where.dense())
        return weights


def softmax_over_visible(scores: Float[Tensor, "b h i j"], mask: Bool[Tensor, "#b #h i j"]) -> Float[Tensor, "b h i j"]:
    """Compute the softmax of each query over the keys that it sees, in float32 or better; 0 if it sees none."""
    precise = torch.promote_types(scores.dtype, torch.float32)
    hidden = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return hidden.softmax(dim=-1, dtype=precise).masked_fill(~mask, 0.0)


def softmax_with_sinks(
    scores: Float[Tensor, "b h i j"], mask: Bool[Tensor, "#b #h i j"], sinks: Float[Tensor, " h"]
) -> Float[Tensor, "b h i j"]:
    """Compute the softmax of each query over visible keys and one more of the given score, whose weight is dropped."""
    precise = torch.promote_types(scores.dtype, torch.float32)
    hidden = scores.to(precise).masked_fill(~mask, torch.finfo(precise).min)
    more = sinks.to(precise).view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
    return torch.cat((more, hidden), dim=-1).softmax(dim=-1)[..., 1:].masked_fill(~mask, 0.0)


def replace_gradient(value: Float[Tensor, "..."], surrogate: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return a value whose gradient is that of a surrogate of the same shape (straight-through)."""
    return value.detach() + (surrogate - surrogate.detach())


NormalizerFactory = Callable[[AttentionShape], Normalizer]
"""Called with the sizes of the attention layer."""
