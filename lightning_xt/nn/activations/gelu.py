from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lightning_xt.nn.activations.base import Activation


class GELU(Activation):
    """Multiply x by the normal distribution function of x.

    Hendrycks and Gimpel, 2016. https://arxiv.org/abs/1606.08415
    """

    def forward(self, x: Float[Tensor, "... f"]) -> Float[Tensor, "... f"]:
        return F.gelu(x)
