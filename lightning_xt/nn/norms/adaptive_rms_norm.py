import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.norms.base import Norm
from lightning_xt.nn.norms.condition import ReadsCondition


class AdaptiveRMSNorm(ReadsCondition, Norm):
    """Divide each vector by its root mean square and scale by a gain made from the condition.

    The adaptive norm of Peebles and Xie, 2022 (DiT, https://arxiv.org/abs/2212.09748) with RMSNorm in place of
    LayerNorm and without its shift. The gain is 1 + W condition, with W zero at the start.
    In x-transformers: use_adaptive_rmsnorm, dim_condition.

    Args:
        condition_dim: width of the condition, which is given with the inputs of a forward, for each row or token.
        eps: added to the mean square before the root.
        mlp_expansion: hidden width of an MLP on the condition, as a multiple of condition_dim. None = no MLP.
    """

    def __init__(
        self, shape: LayerShape, *, condition_dim: int, eps: float = 1e-6, mlp_expansion: float | None = None
    ) -> None:
        super().__init__("norm: AdaptiveRMSNorm", shape, condition_dim, mlp_expansion)
        self.eps = eps
        self.to_gain = nn.Parameter(torch.zeros(self.features, shape.dim))

    def forward(self, x: Float[Tensor, "... D"], inputs: Inputs) -> Float[Tensor, "... D"]:
        gain = 1 + self.read_condition(x, inputs) @ self.to_gain.to(x.dtype)
        return F.rms_norm(x, x.shape[-1:], eps=self.eps) * gain
