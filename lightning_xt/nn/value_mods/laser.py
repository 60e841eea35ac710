import torch
from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.value_mods.base import ValueMod
from lightning_xt.system.option_checks import check_option


class Laser(ValueMod):
    """Gather exponentials of values and take the logarithm of what was gathered, for larger gradients.

    Duvvuri and Dhillon, 2024. https://arxiv.org/abs/2411.03493
    The paper subtracts the largest value of the sequence before the exponential, which a causal model does not know
    while decoding; here values are bounded smoothly to plus or minus a cap. It cannot stand next to persistent keys,
    whose values are not exponentials, nor next to Signed and mixes of heads, whose weights may be negative.
    In x-transformers: attn_laser, attn_laser_softclamp_value.

    Args:
        cap: limit of the absolute value of a feature; float16 holds exponentials up to 11, other types up to 80.
    """

    needs_positive = True

    def __init__(self, shape: AttentionShape, *, cap: float = 10.0) -> None:
        super().__init__()
        check_option("value_mods: Laser", "cap", cap, above=0, most=80)
        self.cap = cap

    def forward(
        self,
        v: Float[Tensor, "b g n e"],
        x: Float[Tensor, "b n c"],
        earlier: tuple[Float[Tensor, "b _ n _"], ...],
        inputs: Inputs,
    ) -> Float[Tensor, "b g n e"]:
        precise = v.to(torch.promote_types(v.dtype, torch.float32))
        return (self.cap * (precise / self.cap).tanh()).exp().to(v.dtype)

    def restore(self, out: Float[Tensor, "b h i e"]) -> Float[Tensor, "b h i e"]:
        precise = out.to(torch.promote_types(out.dtype, torch.float32))
        # A query that sees no key gathers 0, and so do features whose weights dropout set to 0.
        known = precise > 0
        return precise.masked_fill(~known, 1.0).log().to(out.dtype)
