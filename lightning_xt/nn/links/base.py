"""The contract of a link: brings the inputs of earlier sublayers to a later one."""

from abc import ABC
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.shapes import LayerShape

Earlier = tuple[Float[Tensor, "b n D"], ...]
"""Vectors that each earlier sublayer call read from the stream, before links and norms: the embeddings first."""


class Link(nn.Module, ABC):
    """Connection from earlier sublayers to one call of a sublayer, or to the output of the stack.

    Each call has its own link, even if two calls share a sublayer. The first call has nothing earlier.
    """

    def extend_stream(self, stream: Float[Tensor, "b n *s D"], earlier: Earlier) -> Float[Tensor, "b n *s D"]:
        """Change the stream before the sublayer reads it; the change stays in the stream."""
        return stream

    def mix_input(self, x: Float[Tensor, "b n D"], earlier: Earlier) -> Float[Tensor, "b n D"]:
        """Change the vectors that the sublayer has read, before its norm; the stream stays."""
        return x


LinkFactory = Callable[[LayerShape, int, int], Link]
"""Called with the sizes of the layer, the number of calls before this one, and the number of all calls of a forward.

The link of the output has as many calls before it as there are."""


def spread_over_streams(x: Float[Tensor, "b n w"], stream: Float[Tensor, "b n *s D"]) -> Float[Tensor, "b n *_ w"]:
    """Give a vector of each token the number of axes of the stream."""
    return x if stream.dim() == x.dim() else x.unsqueeze(-2)


def sum_weighted(parts: Earlier, weights: Float[Tensor, "b n _"]) -> Float[Tensor, "b n D"]:
    """Sum vectors of each token by its weights, without a copy of all vectors side by side."""
    first, *others = zip(parts, weights.unsqueeze(-1).unbind(dim=-2), strict=True)
    total = first[0] * first[1]
    for part, weight in others:
        total = total + part * weight
    return total
