import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.norms.base import Norm


class RMSNorm(Norm):
    """Divide each vector by its root mean square and scale by a learned gain.

    Zhang and Sennrich, 2019. https://arxiv.org/abs/1910.07467
    In x-transformers: use_rmsnorm, attn_qk_rmsnorm.

    Args:
        eps: added to the mean square before the root.
    """

    def __init__(self, shape: LayerShape, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.gain = nn.Parameter(torch.ones(shape.dim))

    def forward(self, x: Float[Tensor, "... D"], inputs: Inputs) -> Float[Tensor, "... D"]:
        return F.rms_norm(x, x.shape[-1:], self.gain.to(x.dtype), self.eps)
