import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.norms.base import Norm
from lightning_xt.nn.norms.condition import ReadsCondition


class AdaptiveLayerNorm(ReadsCondition, Norm):
    """Give each vector mean 0 and variance 1, then scale and shift by vectors made from the condition.

    Peebles and Xie, 2022 (DiT). https://arxiv.org/abs/2212.09748
    The gain is 1 + W condition and the shift V condition, with W and V zero at the start. The paper has an MLP that all
    norms of a layer share.
    In x-transformers: use_adaptive_layernorm, dim_condition; without the shift there.

    Args:
        condition_dim: width of the condition, which is given with the inputs of a forward, for each row or token.
        eps: added to the variance before the root.
        mlp_expansion: hidden width of an MLP on the condition, as a multiple of condition_dim. None = no MLP.
    """

    shifts = ("to_shift",)

    def __init__(
        self, shape: LayerShape, *, condition_dim: int, eps: float = 1e-6, mlp_expansion: float | None = None
    ) -> None:
        super().__init__("norm: AdaptiveLayerNorm", shape, condition_dim, mlp_expansion)
        self.eps = eps
        self.to_gain = nn.Parameter(torch.zeros(self.features, shape.dim))
        self.to_shift = nn.Parameter(torch.zeros(self.features, shape.dim))

    def forward(self, x: Float[Tensor, "... D"], inputs: Inputs) -> Float[Tensor, "... D"]:
        condition = self.read_condition(x, inputs)
        gain, shift = 1 + condition @ self.to_gain.to(x.dtype), condition @ self.to_shift.to(x.dtype)
        return F.layer_norm(x, x.shape[-1:], eps=self.eps) * gain + shift
