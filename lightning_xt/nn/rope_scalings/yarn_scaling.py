import math

from jaxtyping import Float
from torch import Tensor

from lightning_xt.nn.rope_scalings.base import RopeScaling
from lightning_xt.system.option_checks import check_option


class YarnScaling(RopeScaling):
    """Slow pairs that turn rarely within the original length, keep the fast ones, and sharpen the scores (YaRN).

    Peng et al., 2023. https://arxiv.org/abs/2309.00071

    Args:
        factor: ratio of the new length to the one of training.
        original_length: length of the sequences in training, in tokens.
        beta_fast: pairs with at least this many turns within the original length stay as they are.
        beta_slow: pairs with at most this many turns are slowed by the whole factor.
    """

    def __init__(
        self, *, factor: float, original_length: int = 2048, beta_fast: float = 32.0, beta_slow: float = 1.0
    ) -> None:
        check_option("rope_scaling: YarnScaling", "factor", factor, least=1)
        check_option("rope_scaling: YarnScaling", "original_length", original_length, least=1)
        check_option("rope_scaling: YarnScaling", "beta_fast", beta_fast, above=beta_slow)
        self.factor, self.original_length = factor, original_length
        self.beta_fast, self.beta_slow = beta_fast, beta_slow
        self.gain = 0.1 * math.log(factor) + 1.0

    def __call__(self, frequencies: Float[Tensor, " d"], base: float) -> Float[Tensor, " d"]:
        turns = self.original_length * frequencies / (2 * math.pi)
        keep = ((turns - self.beta_slow) / (self.beta_fast - self.beta_slow)).clamp(0, 1)
        return frequencies / self.factor * (1 - keep) + frequencies * keep
