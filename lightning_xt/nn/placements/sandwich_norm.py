from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.norms.base import NormFactory
from lightning_xt.nn.placements.base import Placement


class SandwichNorm(Placement):
    """Normalize the input and the output of each sublayer.

    Ding et al., 2021 (CogView). https://arxiv.org/abs/2105.13290
    In x-transformers: sandwich_norm.
    """

    def __init__(self, shape: LayerShape, norm: NormFactory) -> None:
        super().__init__(before=norm(shape), after=norm(shape))
