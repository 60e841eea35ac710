"""Buckets of distances, which grow with the logarithm of the distance, as in T5."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.core.where import Where
from lightning_xt.nn.positions.skewing import sees_back_only, skew


class RelativeBuckets:
    """Buckets of distances: half of them hold one distance each, the others grow up to the last.

    Args:
        name: position whose options these are.
        shape: sizes of the attention; if it looks ahead, earlier and later keys have half of the buckets each.
        num_buckets: number of buckets.
        max_distance: distances from here on share the last bucket, in tokens.

    Raises:
        ValueError: there are too few buckets, or the distance is so small that they cannot grow.
    """

    def __init__(self, name: str, shape: AttentionShape, num_buckets: int, max_distance: int) -> None:
        self.causal, self.num_buckets, self.max_distance = shape.causal, num_buckets, max_distance
        per_side = num_buckets if shape.causal else num_buckets // 2
        if per_side < 2 or max_distance <= per_side // 2:
            raise ValueError(
                f"position: {name} has num_buckets {num_buckets} and max_distance {max_distance}; it needs "
                f"at least {2 if shape.causal else 4} buckets and a max_distance above {per_side // 2}"
            )

    def find(self, ahead: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        """Find the bucket of a key by its position relative to the query."""
        if self.causal:
            return self._find_by_distance((-ahead).clamp(min=0), self.num_buckets)
        half = self.num_buckets // 2
        return self._find_by_distance(ahead.abs(), half) + half * (ahead > 0)

    def spread(self, table: Float[Tensor, "_ h"], where: Where) -> Float[Tensor, "1 h n n"] | None:
        """Spread a table by bucket over all pairs, if a distance is a diagonal."""
        n = where.queries.shape[-1]
        if not where.aligned or sees_back_only(where) != self.causal:
            return None
        ahead = torch.arange(1 - n, 1 if self.causal else n, device=table.device)
        return skew(table[self.find(ahead)].T[None, :, None], n)

    def _find_by_distance(self, distance: Int[Tensor, "..."], buckets: int) -> Int[Tensor, "..."]:
        exact = buckets // 2
        grown = torch.log(distance.clamp(min=1).float() / exact) / math.log(self.max_distance / exact)
        coarse = exact + (grown * (buckets - exact)).long()
        return torch.where(distance < exact, distance, coarse.clamp(max=buckets - 1))
