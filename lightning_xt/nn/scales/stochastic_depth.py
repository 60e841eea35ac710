import torch
from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.scales.base import Scale
from lightning_xt.system.option_checks import check_option


class StochasticDepth(Scale):
    """Drop the output of whole sublayers in training, of random rows, more often in later layers.

    Huang et al., 2016. https://arxiv.org/abs/1603.09382
    The fraction grows linearly over depth, and outputs that stay are divided by the fraction that stays. The paper
    drops a layer for all rows at once, and multiplies outputs in evaluation instead. A dropped sublayer is computed all
    the same: every weight has a gradient, of zero if all rows drop it, so that processes may draw different rows.
    In x-transformers: layer_dropout; one fraction for all layers, and for all rows at once there.

    Args:
        last_fraction: fraction of the rows for which the sublayers of the last layer are dropped.
    """

    def __init__(self, shape: LayerShape, *, last_fraction: float = 0.1) -> None:
        super().__init__()
        check_option("scale: StochasticDepth", "last_fraction", last_fraction, least=0, below=1)
        self.fraction = last_fraction * (shape.layer + 1) / shape.depth

    def forward(self, out: Float[Tensor, "b n D"], inputs: Inputs) -> Float[Tensor, "b n D"]:
        if not self.training or not self.fraction:
            return out
        stays = torch.rand(len(out), 1, 1, device=out.device) >= self.fraction
        return out * (stays / (1 - self.fraction)).to(out.dtype)
