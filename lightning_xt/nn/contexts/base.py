"""The contract of a context: what cross-attention reads."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape


class Context(nn.Module, ABC):
    """Provides the vectors that cross-attention reads, and which of them are real."""

    dim: int
    """Width of the vectors."""
    ordered: ClassVar[bool] = False
    """Whether the vectors are a sequence, so that cross-attention can use the position of each."""

    @abstractmethod
    def forward(self, batch: int, inputs: Inputs) -> tuple[Float[Tensor, "b m c"], Bool[Tensor, "b m"] | None]: ...


ContextFactory = Callable[[LayerShape], Context]
