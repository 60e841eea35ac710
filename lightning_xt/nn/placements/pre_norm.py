from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.norms.base import NormFactory
from lightning_xt.nn.placements.base import Placement


class PreNorm(Placement):
    """Norms the input of each sublayer but not the stream, which the stack norms once at the end.

    Xiong et al., 2020. https://arxiv.org/abs/2002.04745

    Args:
        shape: sizes, given by the stack.
        norm: factory of the norms, given by the stack.
    """

    def __init__(self, shape: LayerShape, norm: NormFactory) -> None:
        super().__init__()
        self.norm_before = norm(shape)

    def normalize_input(self, x: Float[Tensor, "b n D"], inputs: Inputs) -> Float[Tensor, "b n D"]:
        return self.norm_before(x, inputs)
