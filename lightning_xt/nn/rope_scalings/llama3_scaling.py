import math

from jaxtyping import Float
from torch import Tensor

from lightning_xt.nn.rope_scalings.base import RopeScaling
from lightning_xt.system.option_checks import check_option


class Llama3Scaling(RopeScaling):
    """Slow pairs whose wavelength exceeds a part of the original length, with a smooth transition.

    Grattafiori et al., 2024 (Llama 3). https://arxiv.org/abs/2407.21783
    The formula is that of the released Llama 3.1 models; the report gives the enlarged base only.

    Args:
        factor: ratio of the new length to the one of training.
        original_length: length of the sequences in training, in tokens.
        low_frequency_factor: wavelengths above original_length / this are slowed by the whole factor.
        high_frequency_factor: wavelengths below original_length / this stay as they are.
    """

    def __init__(
        self,
        *,
        factor: float,
        original_length: int = 2048,
        low_frequency_factor: float = 1.0,
        high_frequency_factor: float = 4.0,
    ) -> None:
        check_option("rope_scaling: Llama3Scaling", "factor", factor, least=1)
        check_option("rope_scaling: Llama3Scaling", "original_length", original_length, least=1)
        check_option(
            "rope_scaling: Llama3Scaling", "high_frequency_factor", high_frequency_factor, above=low_frequency_factor
        )
        self.factor, self.original_length = factor, original_length
        self.low, self.high = low_frequency_factor, high_frequency_factor

    def __call__(self, frequencies: Float[Tensor, " d"], base: float) -> Float[Tensor, " d"]:
        wavelengths = 2 * math.pi / frequencies
        keep = ((self.original_length / wavelengths - self.low) / (self.high - self.low)).clamp(0, 1)
        return frequencies / self.factor * (1 - keep) + frequencies * keep
