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
from lightning_xt.nn.positions.skewing import sees_back_only, skew
from lightning_xt.system.option_checks import check_option


class RelativeProjection(Position):
    """Mix learned curves over the distance into a bias, by weights that each query's token chooses per head.

    The relative attention of Inkling, Thinking Machines Lab, 2026. https://thinkingmachines.ai/news/introducing-inkling/
    The curves are shared by the heads of a layer; distances beyond them have no bias. Attention that looks ahead has
    curves for later keys too.
    In x-transformers: attn_use_rel_proj_pos_bias, attn_rel_proj_num_distance_basis, attn_rel_proj_max_dist.

    Args:
        num_curves: number of curves.
        num_distances: number of distances that a curve covers, in tokens.
    """

    per_row = True

    def __init__(self, shape: AttentionShape, *, num_curves: int = 16, num_distances: int = 1024) -> None:
        super().__init__()
        check_option("position: RelativeProjection", "num_curves", num_curves, least=1)
        check_option("position: RelativeProjection", "num_distances", num_distances, least=1)
        self.heads, self.num_distances = shape.heads, num_distances
        self.backward_only = shape.causal and shape.context_dim is None
        self.ahead = 0 if self.backward_only else num_distances - 1
        """Largest distance to a later key."""
        self.to_weights = nn.Linear(shape.dim, shape.heads * num_curves, bias=False)
        self.curves = nn.Parameter(0.02 * torch.randn(num_curves, self.ahead + num_distances))

    def prepare(
        self, x: Float[Tensor, "b i D"], where: Where, window: int | None, cache: CallCache | None, trace: Trace
    ) -> tuple[Where, Float[Tensor, "_ h _ _"], int]:
        # In cross-attention the queries of rows that share a context are those of one row.
        x = x.reshape(-1, where.queries.shape[-1], x.shape[-1])
        weights = self.to_weights(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        ahead, back = self.ahead, self.num_distances
        reach = max(where.end, where.keys.shape[-1])
        # An exported program serves sequences of any length, whose reach is a symbol.
        if where.order is None and isinstance(reach, int):
            # No distance is longer than the sequence.
            ahead, back = min(ahead, reach), min(back, reach)
        # From the largest distance down, as the bias of all pairs needs them.
        curves = self.curves[:, self.ahead - ahead : self.ahead + back].flip(1).to(weights.dtype)
        return where.expand(x.shape[0]), weights @ curves, ahead

    def pad(self, p: Any, queries: int, keys: int) -> tuple[Where, Float[Tensor, "b h _ _"], int]:
        where, curves, ahead = p
        return where.pad(queries, keys), F.pad(curves, (0, 0, 0, queries)), ahead

    def dense(self, p: Any) -> Float[Tensor, "_ h i j"] | None:
        where, curves, ahead = p
        n = where.queries.shape[-1]
        if not where.aligned or sees_back_only(where) != self.backward_only:
            return None
        back = curves.shape[-1] - ahead
        # Other distances have no bias.
        return skew(F.pad(curves, (n - back, 0 if self.backward_only else n - 1 - ahead)), n)

    def bias(self, b: Tensor, h: Tensor, i: Tensor, j: Tensor, p: Any) -> Float[Tensor, "..."]:
        where, curves, ahead = p
        column = where.keys[b, j] - where.queries[b, i] + curves.shape[-1] - 1 - ahead
        inside = (column >= 0) & (column < curves.shape[-1])
        return torch.where(inside, curves[b, h, i, column.clamp(0, curves.shape[-1] - 1)], 0.0)
