from jaxtyping import Float
from torch import Tensor

from lightning_xt.nn.rope_scalings.base import RopeScaling
from lightning_xt.system.option_checks import check_option


class NTKScaling(RopeScaling):
    """Raise the base so that the slowest pair is slowed by the whole factor and the fastest not at all.

    The "NTK-aware" rule as stated by Peng et al., 2023, section 3.1. https://arxiv.org/abs/2309.00071
    In x-transformers: rotary_base_rescale_factor.

    Args:
        factor: ratio of the new length to the one of training.
    """

    def __init__(self, *, factor: float) -> None:
        check_option("rope_scaling: NTKScaling", "factor", factor, least=1)
        self.factor = factor

    def __call__(self, frequencies: Float[Tensor, " d"], base: float) -> Float[Tensor, " d"]:
        pairs = frequencies.shape[0]
        if pairs == 1:
            return frequencies
        # base' = base * factor^(D / (D - 2)) with D = 2 * pairs, written as a factor on each frequency.
        exponent = frequencies.new_tensor(range(pairs)) / (pairs - 1)
        return frequencies * self.factor**-exponent
