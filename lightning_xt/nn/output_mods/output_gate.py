import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.output_mods.base import OutputMod
from lightning_xt.system.option_checks import check_option


class OutputGate(OutputMod):
    """Gate the gathered values by themselves, by the query's token, and each head by all heads (hybrid gate, HyGA).

    Zhou et al., 2026. https://arxiv.org/abs/2608.11805
    The logits of the gate of each head from its own gathered values and of the gate from the token are added before the
    sigmoid; the gate from all heads, one number per head, is a factor. The paper adds a learned sink, which is
    `normalizer: SinkSoftmax` here.
    In x-transformers: attn_output_gate, attn_output_gate_rank, attn_low_rank_silu_gates; without the gate of each head
    by all heads.

    Args:
        rank: width between the two maps of each gate. None = the width of a head's values.
    """

    gate_maps = ("to_head_gate",)

    def __init__(self, shape: AttentionShape, *, rank: int | None = None) -> None:
        super().__init__()
        check_option("output_mods: OutputGate", "rank", rank, least=1)
        self.heads, width = shape.heads, shape.value_dim
        rank = width if rank is None else rank
        self.out_down = nn.Parameter(torch.randn(shape.heads, width, rank) * width**-0.5)
        self.out_up = nn.Parameter(torch.randn(shape.heads, rank, width) * rank**-0.5)
        self.token_down = nn.Linear(shape.dim, shape.heads * rank, bias=False)
        self.token_up = nn.Parameter(torch.randn(shape.heads, rank, width) * rank**-0.5)
        self.to_head_gate = nn.Linear(shape.heads * width, shape.heads, bias=False)

    def forward(
        self, out: Float[Tensor, "b h i e"], x: Float[Tensor, "b i D"], own: Float[Tensor, "b g i e"] | None
    ) -> Float[Tensor, "b h i e"]:
        token = rearrange(self.token_down(x), "b i (h r) -> b h i r", h=self.heads)
        own_logits = F.silu(out @ self.out_down.to(out.dtype)) @ self.out_up.to(out.dtype)
        token_logits = F.silu(token) @ self.token_up.to(token.dtype)
        heads = self.to_head_gate(out.transpose(1, 2).flatten(2)).sigmoid()
        return out * (own_logits + token_logits).sigmoid() * heads.mT.unsqueeze(-1)
