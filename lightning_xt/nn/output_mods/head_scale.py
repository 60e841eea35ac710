import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.output_mods.base import OutputMod


class HeadScale(OutputMod):
    """Scale the output of each head by a learned number.

    Shleifer, Weston and Ott, 2021 (NormFormer). https://arxiv.org/abs/2110.09456
    In x-transformers: attn_head_scale.
    """

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(shape.heads, 1, 1))

    def forward(
        self, out: Float[Tensor, "b h i e"], x: Float[Tensor, "b i D"], own: Float[Tensor, "b g i e"] | None
    ) -> Float[Tensor, "b h i e"]:
        return out * self.scale.to(out.dtype)
