from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.output_mods.base import OutputMod
from lightning_xt.nn.output_mods.own_values import project_on_own


class Orthogonal(OutputMod):
    """Remove what a head gathered along the value of the token itself, per token and head (exclusive self-attention).

    Zhai, 2026. https://arxiv.org/abs/2603.09078
    In x-transformers: attn_orthog_projected_values, attn_orthog_projected_values_per_head; one product over all tokens
    there, which shows a token the future.
    """

    reads_values = True
    removes_own = True

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__()

    def forward(
        self, out: Float[Tensor, "b h i e"], x: Float[Tensor, "b i D"], own: Float[Tensor, "b g i e"] | None
    ) -> Float[Tensor, "b h i e"]:
        return out if own is None else (out - project_on_own(out, own)).to(out.dtype)
