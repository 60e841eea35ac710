from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lightning_xt.nn.activations.base import Activation


class SiLU(Activation):
    """Multiply x by the sigmoid of x.

    Elfwing, Uchibe and Doya, 2017. https://arxiv.org/abs/1702.03118
    In x-transformers: ff_swish.
    """

    def forward(self, x: Float[Tensor, "... f"]) -> Float[Tensor, "... f"]:
        return F.silu(x)
