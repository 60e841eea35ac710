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
        zero_centered: True to store the gain minus 1, as in Gemma checkpoints (Gemma Team, 2024,
            https://arxiv.org/abs/2403.08295): weight decay then pulls the gain towards 1, and gains near 1 keep their
            precision in bfloat16.
    """

    def __init__(self, shape: LayerShape, *, eps: float = 1e-6, zero_centered: bool = False) -> None:
        super().__init__()
        self.eps, self.zero_centered = eps, zero_centered
        self.gain = nn.Parameter(torch.zeros(shape.dim) if zero_centered else torch.ones(shape.dim))

    def forward(self, x: Float[Tensor, "... D"], inputs: Inputs) -> Float[Tensor, "... D"]:
        if not self.zero_centered:
            return F.rms_norm(x, x.shape[-1:], self.gain.to(x.dtype), self.eps)
        # bfloat16 would round 1 + gain to few digits.
        precise = torch.promote_types(x.dtype, torch.float32)
        return F.rms_norm(x.to(precise), x.shape[-1:], 1 + self.gain.to(precise), self.eps).to(x.dtype)
