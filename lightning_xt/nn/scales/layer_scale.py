import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.scales.base import Scale


class LayerScale(Scale):
    """Multiply the output of each sublayer by a learned gain per feature that starts small.

    Touvron et al., 2021 (CaiT). https://arxiv.org/abs/2103.17239
    The paper starts at 0.1 up to 18 layers, at 1e-5 up to 24, and at 1e-6 beyond.
    In x-transformers: use_layerscale, layerscale_init_value.

    Args:
        init: start of the gains.
    """

    def __init__(self, shape: LayerShape, *, init: float = 0.1) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((shape.dim,), init))

    def forward(self, out: Float[Tensor, "b n D"], inputs: Inputs) -> Float[Tensor, "b n D"]:
        return out * self.gain.to(out.dtype)
