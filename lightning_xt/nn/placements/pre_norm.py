from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.norms.base import NormFactory
from lightning_xt.nn.placements.base import Placement


class PreNorm(Placement):
    """Normalize the input of each sublayer but not the stream, which the stack norms once at the end.

    Xiong et al., 2020. https://arxiv.org/abs/2002.04745
    In x-transformers: pre_norm, pre_norm_has_final_norm.

    Args:
        final_norm: False for no norm at the end.
    """

    def __init__(self, shape: LayerShape, norm: NormFactory, *, final_norm: bool = True) -> None:
        super().__init__(before=norm(shape))
        self.norms_output = final_norm
