from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lightning_xt.nn.activations.base import Activation


class ReLUSquared(Activation):
    """Square positive numbers and set the others to zero.

    So et al., 2021 (Primer). https://arxiv.org/abs/2109.08668
    In x-transformers: ff_relu_squared.
    """

    def forward(self, x: Float[Tensor, "... f"]) -> Float[Tensor, "... f"]:
        return F.relu(x).square()
