from jaxtyping import Float
from torch import Tensor

from lightning_xt.nn.rope_scalings.base import RopeScaling
from lightning_xt.system.option_checks import check_option


class LinearScaling(RopeScaling):
    """Divide every frequency by one factor (position interpolation).

    Chen et al., 2023. https://arxiv.org/abs/2306.15595
    In x-transformers: rotary_interpolation_factor.

    Args:
        factor: ratio of the new length to the one of training.
    """

    def __init__(self, *, factor: float) -> None:
        check_option("rope_scaling: LinearScaling", "factor", factor, least=1)
        self.factor = factor

    def __call__(self, frequencies: Float[Tensor, " d"], base: float) -> Float[Tensor, " d"]:
        return frequencies / self.factor
