from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.norms.base import NormFactory
from lightning_xt.nn.norms.rms_norm import RMSNorm
from lightning_xt.nn.value_mods.base import ValueMod
from lightning_xt.system.option_checks import check_slots


class ValueNorm(ValueMod):
    """Norm the values of each head, as queries and keys are normed.

    Menary, Kaski and Freitas, 2024 (transformer normalisation layers). https://arxiv.org/abs/2406.17837
    In x-transformers: attn_value_rmsnorm; fails there with fewer key/value heads.

    Args:
        norm: norm of each head's values.
    """

    @check_slots
    def __init__(self, shape: AttentionShape, *, norm: NormFactory = RMSNorm) -> None:
        super().__init__()
        self.norm = norm(replace(shape, dim=shape.value_dim))

    def forward(
        self,
        v: Float[Tensor, "b g n e"],
        x: Float[Tensor, "b n c"],
        earlier: tuple[Float[Tensor, "b _ n _"], ...],
        inputs: Inputs,
    ) -> Float[Tensor, "b g n e"]:
        normed: Tensor = self.norm(v, inputs)
        return normed.to(v.dtype)
