import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.core.where import Where
from lightning_xt.nn.positions.base import Position


class RelativeBias(Position):
    """Learn a bias per head for each bucket of distances, the buckets growing with the logarithm of the distance.

    Raffel et al., 2019 (T5). https://arxiv.org/abs/1910.10683
    Each layer has its own table; T5 shares one among all layers.

    Args:
        num_buckets: number of buckets; half of them hold one distance each. Bidirectional attention splits them between
            earlier and later keys.
        max_distance: distances from here on share the last bucket, in tokens.
    """

    def __init__(self, shape: AttentionShape, *, num_buckets: int = 32, max_distance: int = 128) -> None:
        super().__init__()
        self.causal = shape.causal
        per_side = num_buckets if shape.causal else num_buckets // 2
        if per_side < 2 or max_distance <= per_side // 2:
            raise ValueError(
                f"position: RelativeBias has num_buckets {num_buckets} and max_distance {max_distance}; it needs "
                f"at least {2 if shape.causal else 4} buckets and a max_distance above {per_side // 2}"
            )
        self.num_buckets, self.max_distance = num_buckets, max_distance
        self.table = nn.Parameter(torch.randn(num_buckets, shape.heads) * shape.dim**-0.5)

    def bias(self, b: Tensor, h: Tensor, i: Tensor, j: Tensor, p: Where) -> Float[Tensor, "..."]:
        return self.table[self._find_bucket(p.keys[b, j] - p.queries[b, i]), h]

    def _find_bucket(self, ahead: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        """Find the bucket of a key by its position relative to the query."""
        if self.causal:
            return self._find_distance_bucket((-ahead).clamp(min=0), self.num_buckets)
        half = self.num_buckets // 2
        return self._find_distance_bucket(ahead.abs(), half) + half * (ahead > 0)

    def _find_distance_bucket(self, distance: Int[Tensor, "..."], buckets: int) -> Int[Tensor, "..."]:
        exact = buckets // 2
        grown = torch.log(distance.clamp(min=1).float() / exact) / math.log(self.max_distance / exact)
        coarse = exact + (grown * (buckets - exact)).long()
        return torch.where(distance < exact, distance, coarse.clamp(max=buckets - 1))
