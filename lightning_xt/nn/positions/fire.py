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
from lightning_xt.nn.positions.distance_mlp import DistanceMLP
from lightning_xt.system.option_checks import check_option


class FIRE(Position):
    """Compute a bias per head by an MLP from the distance relative to the position of the query, for other lengths.

    Li et al., 2023. https://arxiv.org/abs/2310.04418
    The MLP of query i and key j reads log(1 + c |i - j|) / log(1 + c max(i, L)), with a learned c and a learned
    threshold L. Attention that looks ahead reads it with the sign of i - j, where the paper is causal. SiLU replaces
    ReLU.

    Args:
        hidden_dim: width of the MLP, which has one hidden layer. None = 32, as in the paper.
        c_init: start of c.
        threshold: start of L, in tokens; earlier queries are normalized as if they stood there.
    """

    def __init__(
        self, shape: AttentionShape, *, hidden_dim: int | None = None, c_init: float = 0.1, threshold: float = 512.0
    ) -> None:
        super().__init__()
        check_option("position: FIRE", "hidden_dim", hidden_dim, least=1)
        check_option("position: FIRE", "c_init", c_init, above=0)
        check_option("position: FIRE", "threshold", threshold, above=0)
        self.threshold = threshold
        self.c = nn.Parameter(torch.tensor(c_init))
        self.threshold_gain = nn.Parameter(torch.ones(()))
        self.mlp = DistanceMLP(shape, 32 if hidden_dim is None else hidden_dim, 1)

    def prepare(
        self, x: Float[Tensor, "b i D"], where: Where, window: int | None, cache: CallCache | None, trace: Trace
    ) -> Float[Tensor, "_ h _ j"]:
        where = where.expand(where.rows)
        precise = torch.promote_types(self.c.dtype, torch.float32)
        queries, keys = where.queries[:, :, None].to(precise), where.keys[:, None].to(precise)
        c, threshold = self.c.to(precise), (self.threshold * self.threshold_gain.to(precise)).abs()
        distance = queries - keys
        # The epsilon keeps the quotient finite if c vanishes.
        read = (c * distance).abs().log1p() / ((c * queries.maximum(threshold)).abs().log1p() + 1e-6)
        return self.mlp(distance.sign() * read).movedim(-1, 1)

    def pad(self, p: Any, queries: int, keys: int) -> Float[Tensor, "_ h _ _"]:
        return F.pad(p, (0, keys, 0, queries))

    def dense(self, p: Any) -> Float[Tensor, "_ h i j"] | None:
        return p

    def bias(self, b: Tensor, h: Tensor, i: Tensor, j: Tensor, p: Any) -> Float[Tensor, "..."]:
        return p[b, h, i, j]
