from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.norms.base import NormFactory
from lightning_xt.nn.placements.base import Placement


class PreNorm(Placement):
    """Normalize the input of each sublayer but not the stream, which the stack norms once at the end.

    Xiong et al., 2020. https://arxiv.org/abs/2002.04745
    """

    def __init__(self, shape: LayerShape, norm: NormFactory) -> None:
        super().__init__(before=norm(shape))
