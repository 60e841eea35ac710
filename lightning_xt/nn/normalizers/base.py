"""The contract of a normalizer: from scores to weights, which are 0 for hidden pairs."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor, nn

from lightning_xt.core.shapes import AttentionShape


class Normalizer(nn.Module, ABC):
    """Map from the scores of a query to the weights of its keys."""

    backends: ClassVar[frozenset[str]] = frozenset({"explicit"})
    """Backends that give exactly these weights."""

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__()

    @abstractmethod
    def forward(
        self, scores: Float[Tensor, "b h i j"], mask: Bool[Tensor, "#b #h i j"]
    ) -> Float[Tensor, "b h i j"]: ...


NormalizerFactory = Callable[[AttentionShape], Normalizer]
"""Called with the sizes of the attention layer."""
