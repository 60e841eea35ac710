from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.residuals.base import Residual


class Add(Residual):
    """Add the sublayer's output to the stream.

    He et al., 2015. https://arxiv.org/abs/1512.03385
    """

    def __init__(self, shape: LayerShape, index: int) -> None:
        super().__init__()

    def write(self, stream: Float[Tensor, "b n D"], out: Float[Tensor, "b n D"]) -> Float[Tensor, "b n D"]:
        return stream + out
