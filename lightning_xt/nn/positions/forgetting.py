from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.nn.positions.base import Position


class Forgetting(Position):
    """Lower scores by forget gates: every token decides, per head, how much of its past to forget (FoX).

    Lin et al., 2025. https://arxiv.org/abs/2503.02130
    The bias of query i and key j is the sum of log f over the tokens after j up to i, with the forget gate
    f = sigmoid(w x + b). A masked token forgets nothing. Running sums are in float32, and cached while decoding.
    In x-transformers: attn_data_dependent_alibi, attn_data_dependent_alibi_kwargs; wrong there with a cache.

    Args:
        bias_init: start of b. 0, as in the paper, forgets half at each token; larger values remember longer.
    """

    looks_back = True
    lowers_scores = True
    per_row = True
    gate_maps = ("to_gate",)

    def __init__(self, shape: AttentionShape, *, bias_init: float = 0.0) -> None:
        super().__init__()
        if not shape.causal or shape.context_dim is not None:
            raise ValueError(
                "position: Forgetting sums over the past, so it serves causal self-attention only; choose another"
            )
        self.to_gate = nn.Linear(shape.dim, shape.heads, bias=False)
        self.gate_bias = nn.Parameter(torch.full((shape.heads,), bias_init))

    def prepare(
        self, x: Float[Tensor, "b i D"], where: Where, window: int | None, cache: CallCache | None, trace: Trace
    ) -> tuple[Float[Tensor, "b h i"], Float[Tensor, "b h j"]]:
        logits = self.to_gate(x) + self.gate_bias
        log_gates = F.logsigmoid(logits if logits.dtype == torch.float64 else logits.float())
        if where.valid is not None:
            log_gates = log_gates.masked_fill(~where.valid[..., None], 0.0)
        sums = log_gates.mT.unsqueeze(-1).cumsum(dim=-2)
        if cache is None:
            return sums.squeeze(-1), sums.squeeze(-1)
        sums = sums + cache.get_last("forgotten", sums)
        return sums.squeeze(-1), cache.append("forgotten", sums, window=window).squeeze(-1)

    def pad(self, p: Any, queries: int, keys: int) -> tuple[Float[Tensor, "b h _"], Float[Tensor, "b h _"]]:
        return F.pad(p[0], (0, queries)), F.pad(p[1], (0, keys))

    def bias(self, b: Tensor, h: Tensor, i: Tensor, j: Tensor, p: Any) -> Float[Tensor, "..."]:
        queries, keys = p
        return queries[b, h, i] - keys[b, h, j]
