from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lightning_xt.nn.activations.base import Activation
from lightning_xt.system.option_checks import check_option


class LeakyReLUSquared(Activation):
    """Square each number, negative ones after a multiplication by a slope.

    Of public speedruns of small language models, 2026. https://github.com/KellerJordan/modded-nanogpt
    Negative numbers have a gradient, unlike in ReLUSquared.

    Args:
        negative_slope: factor of negative numbers before the square.
    """

    def __init__(self, *, negative_slope: float = 0.5) -> None:
        super().__init__()
        check_option("activation: LeakyReLUSquared", "negative_slope", negative_slope, above=0, most=1)
        self.negative_slope = negative_slope

    def forward(self, x: Float[Tensor, "... f"]) -> Float[Tensor, "... f"]:
        return F.leaky_relu(x, self.negative_slope).square()
