"""The contract of a norm: rescales vectors and keeps their shape."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs, ReadsInput
from lightning_xt.core.shapes import LayerShape


class Norm(ReadsInput, nn.Module, ABC):
    """Rescaling of each vector; adaptive norms read their condition from the inputs."""

    shifts: ClassVar[tuple[str, ...]] = ()
    """Parameters that add the same to every vector. Of keys that no position rotates, softmax cancels it."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "... D"], inputs: Inputs) -> Float[Tensor, "... D"]: ...


NormFactory = Callable[[LayerShape], Norm]
"""Called with the sizes of the layer, `dim` being the width of the normed vectors."""
