"""The contract of a context: the vectors of cross-attention."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs, ReadsInput
from lightning_xt.core.shapes import LayerShape


class Context(ReadsInput, nn.Module, ABC):
    """Source of the vectors that cross-attention reads, and of their mask."""

    dim: int
    """Width of the vectors."""
    ordered: ClassVar[bool] = False
    """True if the vectors are a sequence, so that cross-attention can use their positions."""

    @abstractmethod
    def forward(self, batch: int, inputs: Inputs) -> tuple[Float[Tensor, "b m c"], Bool[Tensor, "b m"] | None]: ...


ContextFactory = Callable[[LayerShape], Context]
"""Called with the sizes of the model."""
