import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.output_mods.base import OutputMod


class ValueGate(OutputMod):
    """Gate every gathered feature by a sigmoid of the query's token.

    Qiu et al., 2025 (gated attention, the gate after the attention). https://arxiv.org/abs/2505.06708
    A learned bias, absent in the paper, starts the gate nearly open.

    Args:
        bias_init: start of the gate's bias; sigmoid(2) = 0.88 of each feature passes.
    """

    def __init__(self, shape: AttentionShape, *, bias_init: float = 2.0) -> None:
        super().__init__()
        self.heads = shape.heads
        self.to_gate = nn.Linear(shape.dim, shape.heads * shape.value_dim, bias=False)
        self.gate_bias = nn.Parameter(torch.full((shape.heads * shape.value_dim,), bias_init))

    def forward(
        self, out: Float[Tensor, "b h i e"], x: Float[Tensor, "b i D"], own: Float[Tensor, "b g i e"] | None
    ) -> Float[Tensor, "b h i e"]:
        gate = (self.to_gate(x) + self.gate_bias.to(x.dtype)).sigmoid()
        return out * rearrange(gate, "b i (h e) -> b h i e", h=self.heads)
