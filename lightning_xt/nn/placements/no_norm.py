from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.norms.base import NormFactory
from lightning_xt.nn.placements.base import Placement


class NoNorm(Placement):
    """Normalize nothing, for residuals and other parts that normalize by themselves, such as ResiDual."""

    norms_output = False

    def __init__(self, shape: LayerShape, norm: NormFactory) -> None:
        super().__init__()
