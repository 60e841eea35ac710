"""The contract of a residual: reads a sublayer's input from the stream and writes its output back."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.where import Where


class Residual(nn.Module, ABC):
    """Connection of one sublayer to the residual stream, whose shape only the residual knows."""

    sees_ahead: ClassVar[bool] = False
    """True if a token's stream depends on later tokens, so that a causal stack refuses the residual."""

    def open(self, x: Float[Tensor, "b n D"]) -> Float[Tensor, "b n *s D"]:
        """Make the stream before the first sublayer."""
        return x

    def read(self, stream: Float[Tensor, "b n *s D"]) -> Float[Tensor, "b n D"]:
        """Read the input of the sublayer."""
        return stream

    @abstractmethod
    def write(self, stream: Float[Tensor, "b n *s D"], out: Float[Tensor, "b n D"]) -> Float[Tensor, "b n *s D"]:
        """Write the output of the sublayer to the stream."""

    def write_rows(
        self, stream: Float[Tensor, "b n *s D"], out: Float[Tensor, "b n D"], where: Where
    ) -> Float[Tensor, "b n *s D"]:
        """Write the output of the sublayer to the stream of whole rows; by default, of each token by itself."""
        return self.write(stream, out)

    def close(self, stream: Float[Tensor, "b n *s D"]) -> Float[Tensor, "b n D"]:
        """Turn the stream after the last sublayer into hidden states."""
        return stream


ResidualFactory = Callable[[LayerShape, int], Residual]
"""Called with the sizes and with the number of sublayers before this one."""
