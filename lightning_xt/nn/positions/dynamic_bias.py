from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.nn.norms.base import NormFactory
from lightning_xt.nn.positions.base import Position
from lightning_xt.nn.positions.distance_mlp import DistanceMLP
from lightning_xt.nn.positions.skewing import sees_back_only, skew
from lightning_xt.system.option_checks import check_option, check_slots


class DynamicBias(Position):
    """Compute a bias per head from the distance by a small MLP.

    Wang et al., 2021 (CrossFormer). https://arxiv.org/abs/2108.00154
    The MLP reads the position of the query minus that of the key, once for each distance. The paper reads two
    coordinates of an image, of at most 13 steps; here the logarithm of the distance is the default. SiLU replaces ReLU.
    In x-transformers: dynamic_pos_bias, dynamic_pos_bias_log_distance, dynamic_pos_bias_mlp_depth,
    dynamic_pos_bias_norm.

    Args:
        hidden_dim: width of the MLP. None = a quarter of the model's width, as in the paper.
        hidden_layers: number of hidden layers.
        log_distance: True to read sign(d) * log(1 + |d|) instead of the distance d.
        norm: norm before each activation. None = no norm.
    """

    @check_slots
    def __init__(
        self,
        shape: AttentionShape,
        *,
        hidden_dim: int | None = None,
        hidden_layers: int = 2,
        log_distance: bool = True,
        norm: NormFactory | None = None,
    ) -> None:
        super().__init__()
        check_option("position: DynamicBias", "hidden_dim", hidden_dim, least=1)
        check_option("position: DynamicBias", "hidden_layers", hidden_layers, least=1)
        self.log_distance, self.backward_only = log_distance, shape.causal and shape.context_dim is None
        self.mlp = DistanceMLP(shape, max(1, shape.dim // 4) if hidden_dim is None else hidden_dim, hidden_layers, norm)

    def prepare(
        self, x: Float[Tensor, "b i D"], where: Where, window: int | None, cache: CallCache | None, trace: Trace
    ) -> tuple[Where, Float[Tensor, "_ h"], int] | Float[Tensor, "_ h i j"]:
        if where.order is not None:
            # Positions of the caller have no largest distance that the host knows.
            return self._compute(where.queries[:, :, None] - where.keys[:, None]).movedim(-1, 1)
        reach = max(where.end, where.keys.shape[-1])
        ahead = 0 if self.backward_only else reach - 1
        table = self._compute(torch.arange(-ahead, reach, device=x.device))
        return where.expand(where.rows), table, ahead

    def pad(self, p: Any, queries: int, keys: int) -> Any:
        if isinstance(p, Tensor):
            return F.pad(p, (0, keys, 0, queries))
        where, table, ahead = p
        return where.pad(queries, keys), table, ahead

    def dense(self, p: Any) -> Float[Tensor, "_ h i j"] | None:
        if isinstance(p, Tensor):
            return p
        where, table, ahead = p
        n = where.queries.shape[-1]
        if not where.aligned or sees_back_only(where) != self.backward_only:
            return None
        largest = table[max(0, ahead - n + 1) : ahead + n].flip(0)
        return skew(largest.T[None, :, None], n)

    def bias(self, b: Tensor, h: Tensor, i: Tensor, j: Tensor, p: Any) -> Float[Tensor, "..."]:
        if isinstance(p, Tensor):
            return p[b, h, i, j]
        where, table, ahead = p
        row = where.queries[b, i] - where.keys[b, j] + ahead
        return table[row.clamp(0, len(table) - 1), h]

    def _compute(self, distance: Tensor) -> Float[Tensor, "... h"]:
        distance = distance.to(torch.promote_types(self.mlp.slope.dtype, torch.float32))
        return self.mlp(distance.sign() * distance.abs().log1p() if self.log_distance else distance)
