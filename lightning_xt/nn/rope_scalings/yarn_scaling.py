import math
from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor

from lightning_xt.nn.rope_scalings.base import RopeScaling
from lightning_xt.system.option_checks import check_option

Ramp = Literal["turns", "pairs"]


class YarnScaling(RopeScaling):
    """Slow pairs that turn rarely within the original length, keep the fast ones, and sharpen the scores (YaRN).

    Peng et al., 2023. https://arxiv.org/abs/2309.00071

    Args:
        factor: ratio of the new length to the one of training.
        original_length: length of the sequences in training, in tokens.
        beta_fast: pairs with at least this many turns within the original length stay as they are.
        beta_slow: pairs with at most this many turns are slowed by the whole factor.
        ramp: measure along which the change grows for the pairs between: "turns", as the paper states, or "pairs", the
            number of the pair, from one pair to another, as in the released code and in checkpoints of Qwen.
        gain: factor on rotated queries and on rotated keys. None = 0.1 log(factor) + 1.
    """

    def __init__(
        self,
        *,
        factor: float,
        original_length: int = 2048,
        beta_fast: float = 32.0,
        beta_slow: float = 1.0,
        ramp: Ramp = "turns",
        gain: float | None = None,
    ) -> None:
        check_option("rope_scaling: YarnScaling", "factor", factor, least=1)
        check_option("rope_scaling: YarnScaling", "original_length", original_length, least=1)
        check_option("rope_scaling: YarnScaling", "beta_fast", beta_fast, above=beta_slow)
        check_option("rope_scaling: YarnScaling", "gain", gain, above=0)
        if ramp not in get_args(Ramp):
            raise ValueError(f"rope_scaling: YarnScaling has ramp {ramp!r}, which must be one of turns, pairs")
        if ramp == "pairs":
            check_option("rope_scaling: YarnScaling", "beta_slow", beta_slow, above=0)
        self.factor, self.original_length, self.ramp = factor, original_length, ramp
        self.beta_fast, self.beta_slow = beta_fast, beta_slow
        self.gain = 0.1 * math.log(factor) + 1.0 if gain is None else gain

    def __call__(self, frequencies: Float[Tensor, " d"], base: float) -> Float[Tensor, " d"]:
        keep = self._keep_by_turns(frequencies) if self.ramp == "turns" else self._keep_by_pairs(frequencies, base)
        return frequencies / self.factor * (1 - keep) + frequencies * keep

    def _keep_by_turns(self, frequencies: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
        turns = self.original_length * frequencies / (2 * math.pi)
        return ((turns - self.beta_slow) / (self.beta_fast - self.beta_slow)).clamp(0, 1)

    def _keep_by_pairs(self, frequencies: Float[Tensor, " d"], base: float) -> Float[Tensor, " d"]:
        if base <= 1:
            raise ValueError(
                f"rope_scaling: YarnScaling has ramp 'pairs', for which the base must be above 1, but it is {base}"
            )
        pairs = frequencies.shape[0]
        # Pair k turns original_length * base^(-k / pairs) / 2 pi times.
        fast, slow = (
            pairs * math.log(self.original_length / (2 * math.pi * turns), base)
            for turns in (self.beta_fast, self.beta_slow)
        )
        first, last = max(math.floor(fast), 0), min(math.ceil(slow), 2 * pairs - 1)
        # One pair may be both.
        width = last - first if last != first else 0.001
        return 1 - ((frequencies.new_tensor(range(pairs)) - first) / width).clamp(0, 1)
