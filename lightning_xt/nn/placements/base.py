"""The contract of a placement: the norms around a sublayer."""

from abc import ABC
from collections.abc import Callable
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.norms.base import NormFactory


class Placement(nn.Module, ABC):
    """Norms before a sublayer, on its output, and on the stream after it; no norm by default."""

    norms_embeddings: ClassVar[bool] = False
    """True if the stack norms the embeddings before the first sublayer."""
    norms_output: ClassVar[bool] = True
    """True if the stack norms the stream after the last sublayer."""

    def normalize_input(self, x: Float[Tensor, "b n D"], inputs: Inputs) -> Float[Tensor, "b n D"]:
        """Norm the input of the sublayer."""
        return x

    def normalize_output(self, out: Float[Tensor, "b n D"], inputs: Inputs) -> Float[Tensor, "b n D"]:
        """Norm the output of the sublayer."""
        return out

    def normalize_stream(self, stream: Float[Tensor, "b n *s D"], inputs: Inputs) -> Float[Tensor, "b n *s D"]:
        """Norm the stream after the sublayer."""
        return stream


PlacementFactory = Callable[[LayerShape, NormFactory], Placement]
