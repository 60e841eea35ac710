from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lightning_xt.nn.activations.base import Activation


class ReLU(Activation):
    """Set negative numbers to zero.

    Nair and Hinton, 2010. https://www.cs.toronto.edu/~fritz/absps/reluICML.pdf
    """

    def forward(self, x: Float[Tensor, "... f"]) -> Float[Tensor, "... f"]:
        return F.relu(x)
