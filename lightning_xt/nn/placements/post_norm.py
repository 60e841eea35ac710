from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.norms.base import NormFactory
from lightning_xt.nn.placements.base import Placement


class PostNorm(Placement):
    """Normalize the stream after each sublayer, as the first transformer did.

    Vaswani et al., 2017. https://arxiv.org/abs/1706.03762
    In x-transformers: pre_norm; it is false there.
    """

    norms_output = False

    def __init__(self, shape: LayerShape, norm: NormFactory) -> None:
        super().__init__(stream=norm(shape))
