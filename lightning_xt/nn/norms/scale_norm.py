import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.norms.base import Norm


class ScaleNorm(Norm):
    """Give each vector the same learned length.

    Nguyen and Salazar, 2019. https://arxiv.org/abs/1910.05895
    The length starts at the square root of the width, which gives features a mean square of 1.
    In x-transformers: use_scalenorm.

    Args:
        eps: added to the mean square before the root.
    """

    def __init__(self, shape: LayerShape, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.length = nn.Parameter(torch.full((1,), shape.dim**0.5))

    def forward(self, x: Float[Tensor, "... D"], inputs: Inputs) -> Float[Tensor, "... D"]:
        factor = self.length.to(x.dtype) * x.shape[-1] ** -0.5
        return F.rms_norm(x, x.shape[-1:], eps=self.eps) * factor
