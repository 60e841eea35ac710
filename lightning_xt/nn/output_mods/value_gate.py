import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.activations.base import ActivationFactory
from lightning_xt.nn.output_mods.base import OutputMod
from lightning_xt.system.option_checks import check_option, check_slots


class ValueGate(OutputMod):
    """Gate every gathered feature by a sigmoid of the query's token.

    Qiu et al., 2025 (gated attention, the gate after the attention). https://arxiv.org/abs/2505.06708
    A learned bias, absent in the paper, starts the gate nearly open. One gate per head is HeadGate.
    In x-transformers: attn_gate_values, attn_gate_values_rank, attn_swiglu_values.

    Args:
        bias_init: start of the gate's bias; sigmoid(2) = 0.88 of each feature passes.
        rank: width between two maps in place of the gate's single one. None = a single map.
        activation: activation in place of the sigmoid, such as SiLU. None = the sigmoid.
    """

    @check_slots
    def __init__(
        self,
        shape: AttentionShape,
        *,
        bias_init: float = 2.0,
        rank: int | None = None,
        activation: ActivationFactory | None = None,
    ) -> None:
        super().__init__()
        check_option("output_mods: ValueGate", "rank", rank, least=1)
        width = shape.heads * shape.value_dim
        self.heads = shape.heads
        self.to_rank = None if rank is None else nn.Linear(shape.dim, rank, bias=False)
        self.to_gate = nn.Linear(shape.dim if rank is None else rank, width, bias=False)
        self.gate_bias = nn.Parameter(torch.full((width,), bias_init))
        self.activation = nn.Sigmoid() if activation is None else activation()

    def forward(
        self, out: Float[Tensor, "b h i e"], x: Float[Tensor, "b i D"], own: Float[Tensor, "b g i e"] | None
    ) -> Float[Tensor, "b h i e"]:
        source = x if self.to_rank is None else self.to_rank(x)
        gate = self.activation(self.to_gate(source) + self.gate_bias.to(x.dtype))
        return out * rearrange(gate, "b i (h e) -> b h i e", h=self.heads)
