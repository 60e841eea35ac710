"""The contract of a placement: the norms around a sublayer."""

from abc import ABC
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.norms.base import Norm, NormFactory


class Placement(nn.Module, ABC):
    """Norms before a sublayer, on its output, and on the stream after it.

    Args:
        before: norm of the input of the sublayer. None = no norm; likewise for the others.
        after: norm of the output of the sublayer.
        stream: norm of the stream after the sublayer.
    """

    norms_embeddings: bool = False
    """True if the stack norms the embeddings before the first sublayer."""
    norms_output: bool = True
    """True if the stack norms the stream after the last sublayer."""

    def __init__(self, before: Norm | None = None, after: Norm | None = None, stream: Norm | None = None) -> None:
        super().__init__()
        self.norm_before, self.norm_after, self.norm_stream = before, after, stream

    def normalize_input(self, x: Float[Tensor, "b n D"], inputs: Inputs) -> Float[Tensor, "b n D"]:
        """Normalize the input of the sublayer."""
        return x if self.norm_before is None else self.norm_before(x, inputs)

    def normalize_output(self, out: Float[Tensor, "b n D"], inputs: Inputs) -> Float[Tensor, "b n D"]:
        """Normalize the output of the sublayer."""
        return out if self.norm_after is None else self.norm_after(out, inputs)

    def normalize_stream(self, stream: Float[Tensor, "b n *s D"], inputs: Inputs) -> Float[Tensor, "b n *s D"]:
        """Normalize the stream after the sublayer."""
        return stream if self.norm_stream is None else self.norm_stream(stream, inputs)


PlacementFactory = Callable[[LayerShape, NormFactory], Placement]
"""Called with the sizes of the layer and the factory of the norms."""
