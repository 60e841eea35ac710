import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.core.where import Where
from lightning_xt.nn.positions.base import Position
from lightning_xt.nn.positions.relative_buckets import RelativeBuckets


class RelativeBias(Position):
    """Learn a bias per head for each bucket of distances, the buckets growing with the logarithm of the distance.

    Raffel et al., 2019 (T5). https://arxiv.org/abs/1910.10683
    Each layer has its own table; T5 shares one among all layers, as SharedRelativeBias does.
    In x-transformers: rel_pos_bias, rel_pos_num_buckets, rel_pos_max_distance; there too, one table serves all layers.

    Args:
        num_buckets: number of buckets; half of them hold one distance each. Bidirectional attention splits them between
            earlier and later keys.
        max_distance: distances from here on share the last bucket, in tokens.
    """

    def __init__(self, shape: AttentionShape, *, num_buckets: int = 32, max_distance: int = 128) -> None:
        super().__init__()
        self.buckets = RelativeBuckets("RelativeBias", shape, num_buckets, max_distance)
        self.num_buckets, self.max_distance = num_buckets, max_distance
        self.table = nn.Parameter(torch.randn(num_buckets, shape.heads) * shape.dim**-0.5)

    def dense(self, p: Where) -> Float[Tensor, "1 h i j"] | None:
        return self.buckets.spread(self.table, p)

    def bias(self, b: Tensor, h: Tensor, i: Tensor, j: Tensor, p: Where) -> Float[Tensor, "..."]:
        return self.table[self.buckets.find(p.keys[b, j] - p.queries[b, i]), h]
