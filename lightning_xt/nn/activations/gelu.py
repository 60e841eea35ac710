from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lightning_xt.nn.activations.base import Activation

Approximation = Literal["none", "tanh"]


class GELU(Activation):
    """Multiply x by the normal distribution function of x.

    Hendrycks and Gimpel, 2016. https://arxiv.org/abs/1606.08415

    Args:
        approximate: "none" for the function itself, or "tanh" for the paper's approximation by a hyperbolic tangent, as
            in GPT-2, T5 1.1 and Gemma.
    """

    def __init__(self, *, approximate: Approximation = "none") -> None:
        super().__init__()
        if approximate not in get_args(Approximation):
            raise ValueError(
                f"activation: GELU has approximate {approximate!r}, which must be one of "
                f"{', '.join(get_args(Approximation))}"
            )
        self.approximate: Approximation = approximate

    def forward(self, x: Float[Tensor, "... f"]) -> Float[Tensor, "... f"]:
        return F.gelu(x, approximate=self.approximate)
