from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lightning_xt.nn.feedforward.glu import GLU


class GEGLU(GLU):
    """Gates one half of the hidden features by the GELU of the other.

    Shazeer, 2020. https://arxiv.org/abs/2002.05202

    Args:
        shape: sizes, given by the stack.
        hidden_dim: width of each half. None = 8/3 of the stream's width, rounded up to a multiple of 8, which gives as
            many parameters as an MLP of four times the stream's width has.
        bias: True if the maps have biases.
        dropout: fraction of the hidden features dropped in training.
    """

    def activate(self, gate: Float[Tensor, "b n f"]) -> Float[Tensor, "b n f"]:
        return F.gelu(gate)
