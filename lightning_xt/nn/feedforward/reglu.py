from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lightning_xt.nn.feedforward.glu import GLU


class ReGLU(GLU):
    """Gate one half of the hidden features by the ReLU of the other.

    Shazeer, 2020. https://arxiv.org/abs/2002.05202
    In x-transformers: ff_glu, ff_custom_activation.
    """

    def activate(self, gate: Float[Tensor, "b n f"]) -> Float[Tensor, "b n f"]:
        return F.relu(gate)
