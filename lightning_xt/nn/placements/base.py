"""The contract of a placement: where norms stand around a sublayer."""

from abc import ABC
from collections.abc import Callable
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.norms.base import NormFactory


class Placement(nn.Module, ABC):
    """Norms before a sublayer, on its output, and on the stream after it. None of them by default."""

    norms_embeddings: ClassVar[bool] = False
    """Whether the stack norms the embeddings before the first sublayer."""
    norms_output: ClassVar[bool] = True
    """Whether the stack norms the stream after the last sublayer."""

    def normalize_input(self, x: Float[Tensor, "b n D"], inputs: Inputs) -> Float[Tensor, "b n D"]:
        """What the sublayer reads."""
        return x

    def normalize_output(self, out: Float[Tensor, "b n D"], inputs: Inputs) -> Float[Tensor, "b n D"]:
        """What is written to the stream."""
        return out

    def normalize_stream(self, stream: Float[Tensor, "b n *s D"], inputs: Inputs) -> Float[Tensor, "b n *s D"]:
        """The stream after it was written to."""
        return stream


PlacementFactory = Callable[[LayerShape, NormFactory], Placement]
