import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.output_mods.base import OutputMod


class HeadGate(OutputMod):
    """Gate the output of each head by a sigmoid of the query's token.

    Bondarenko, Nagel and Blankevoort, 2023. https://arxiv.org/abs/2306.12929
    In x-transformers: attn_gate_value_heads, attn_gate_values_headwise.

    Args:
        bias_init: start of the gate's bias; sigmoid(2) = 0.88 of each head passes.
    """

    gate_maps = ("to_gate",)

    def __init__(self, shape: AttentionShape, *, bias_init: float = 2.0) -> None:
        super().__init__()
        self.to_gate = nn.Linear(shape.dim, shape.heads, bias=False)
        self.gate_bias = nn.Parameter(torch.full((shape.heads,), bias_init))

    def forward(
        self, out: Float[Tensor, "b h i e"], x: Float[Tensor, "b i D"], own: Float[Tensor, "b g i e"] | None
    ) -> Float[Tensor, "b h i e"]:
        gate = (self.to_gate(x) + self.gate_bias.to(x.dtype)).sigmoid()
        return out * gate.mT.unsqueeze(-1)
