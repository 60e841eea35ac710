import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.norms.condition import ReadsCondition
from lightning_xt.nn.scales.base import Scale


class AdaptiveLayerScale(ReadsCondition, Scale):
    """Multiply the output of each sublayer by a gain made from the condition.

    Peebles and Xie, 2022 (DiT, adaLN-Zero). https://arxiv.org/abs/2212.09748
    The gain is W condition + b, all zero at the start, so a fresh sublayer writes nothing.
    In x-transformers: use_adaptive_layerscale, dim_condition; a sigmoid that starts at 0.12 there.

    Args:
        condition_dim: width of the condition, which is given with the inputs of a forward, for each row or token.
        mlp_expansion: hidden width of an MLP on the condition, as a multiple of condition_dim. None = no MLP.
    """

    def __init__(self, shape: LayerShape, *, condition_dim: int, mlp_expansion: float | None = None) -> None:
        super().__init__("scale: AdaptiveLayerScale", shape, condition_dim, mlp_expansion)
        self.to_gain = nn.Parameter(torch.zeros(self.features, shape.dim))
        self.bias = nn.Parameter(torch.zeros(shape.dim))

    def forward(self, out: Float[Tensor, "b n D"], inputs: Inputs) -> Float[Tensor, "b n D"]:
        return out * (self.read_condition(out, inputs) @ self.to_gain.to(out.dtype) + self.bias.to(out.dtype))
