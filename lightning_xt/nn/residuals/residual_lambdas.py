import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.residuals.base import Residual


class ResidualLambdas(Residual):
    """Multiply the stream by a learned number before adding the sublayer's output.

    Public speedruns of small GPTs. https://github.com/KellerJordan/modded-nanogpt
    They have one number a layer, from 1.15 to 1.05 over depth; here each of its two sublayers starts at the root. The
    embeddings that they add to each layer are links: InputLambdas.

    Args:
        first: start of the number in the first layer; it changes linearly over depth.
        last: start of the number in the last layer.
    """

    def __init__(self, shape: LayerShape, index: int, *, first: float = 1.07, last: float = 1.02) -> None:
        super().__init__()
        start = first + (last - first) * shape.layer / max(1, shape.depth - 1)
        self.factor = nn.Parameter(torch.full((1,), start))

    def write(self, stream: Float[Tensor, "b n D"], out: Float[Tensor, "b n D"]) -> Float[Tensor, "b n D"]:
        return self.factor.to(stream.dtype) * stream + out
