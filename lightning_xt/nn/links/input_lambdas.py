import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.links.base import Earlier, Link, spread_over_streams


class InputLambdas(Link):
    """Add the embeddings to the stream before each sublayer, times a learned number.

    Public speedruns of small GPTs. https://github.com/KellerJordan/modded-nanogpt
    They have one number a layer, from 0.2 to 0.05 over depth; two sublayers here start at half of it each. The number
    of the stream itself, which they learn too, is residual: ResidualLambdas.

    Args:
        first: start of the number at the second sublayer; it falls linearly over depth.
        last: start of the number at the output.
    """

    def __init__(self, shape: LayerShape, index: int, calls: int, *, first: float = 0.1, last: float = 0.025) -> None:
        super().__init__()
        start = first + (last - first) * (index - 1) / max(1, calls - 1)
        self.factor = nn.Parameter(torch.full((1,), start)) if index else None

    def extend_stream(self, stream: Float[Tensor, "b n *s D"], earlier: Earlier) -> Float[Tensor, "b n *s D"]:
        if self.factor is None:
            return stream
        return stream + self.factor.to(stream.dtype) * spread_over_streams(earlier[0], stream)
