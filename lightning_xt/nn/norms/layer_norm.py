import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.norms.base import Norm


class LayerNorm(Norm):
    """Give each vector mean 0 and variance 1, then scale by a learned gain; no bias by default.

    Ba, Kiros and Hinton, 2016. https://arxiv.org/abs/1607.06450

    Args:
        eps: added to the variance before the root.
        bias: True to add a learned bias, as the paper does.
    """

    shifts = ("bias",)

    def __init__(self, shape: LayerShape, *, eps: float = 1e-6, bias: bool = False) -> None:
        super().__init__()
        self.eps = eps
        self.gain = nn.Parameter(torch.ones(shape.dim))
        self.bias = nn.Parameter(torch.zeros(shape.dim)) if bias else None

    def forward(self, x: Float[Tensor, "... D"], inputs: Inputs) -> Float[Tensor, "... D"]:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.layer_norm(x, x.shape[-1:], self.gain.to(x.dtype), bias, self.eps)
