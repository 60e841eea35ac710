from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.nn.positions.base import Position
from lightning_xt.nn.positions.relative_buckets import RelativeBuckets


class SharedRelativeBias(Position):
    """Learn one bias per head and bucket of distances for all layers, as T5 does.

    Raffel et al., 2019 (T5). https://arxiv.org/abs/1910.10683
    The first layer that has this position owns the table, and later layers read it. Self-attention and cross-attention
    have one table each.
    In x-transformers: rel_pos_bias, rel_pos_num_buckets, rel_pos_max_distance.

    Args:
        num_buckets: number of buckets; half of them hold one distance each. Bidirectional attention splits them between
            earlier and later keys.
        max_distance: distances from here on share the last bucket, in tokens.
    """

    def __init__(self, shape: AttentionShape, *, num_buckets: int = 32, max_distance: int = 128) -> None:
        super().__init__()
        self.buckets = RelativeBuckets("SharedRelativeBias", shape, num_buckets, max_distance)
        self.num_buckets, self.max_distance = num_buckets, max_distance
        self.name = "relative_bias" if shape.context_dim is None else "context_relative_bias"
        self.shared = (("position: SharedRelativeBias", f"num_buckets {num_buckets} and heads {shape.heads}"),)
        self.table = (
            nn.Parameter(torch.randn(num_buckets, shape.heads) * shape.dim**-0.5) if shape.owns(self.name) else None
        )

    def share(self, trace: Trace) -> Trace:
        # A copy: shards of the table itself may be gone when later layers read it.
        return trace if self.table is None else trace.share(self.name, self.table.clone())

    def prepare(
        self, x: Float[Tensor, "b i D"], where: Where, window: int | None, cache: CallCache | None, trace: Trace
    ) -> tuple[Where, Float[Tensor, "_ h"]]:
        return where.expand(where.rows), trace.shared[self.name]

    def pad(self, p: Any, queries: int, keys: int) -> tuple[Where, Float[Tensor, "_ h"]]:
        return p[0].pad(queries, keys), p[1]

    def dense(self, p: Any) -> Float[Tensor, "1 h i j"] | None:
        return self.buckets.spread(p[1], p[0])

    def bias(self, b: Tensor, h: Tensor, i: Tensor, j: Tensor, p: Any) -> Float[Tensor, "..."]:
        where, table = p
        return table[self.buckets.find(where.keys[b, j] - where.queries[b, i]), h]
