"""The parts and positions by which attention scores queries against keys."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lightning_xt.core.where import Where
from lightning_xt.nn.normalizers.base import Normalizer
from lightning_xt.nn.positions.base import Position
from lightning_xt.nn.score_mods.base import ScoreMod
from lightning_xt.nn.scores.base import Score


@dataclass(frozen=True, eq=False)
class Scoring:
    """Everything a kernel needs besides queries, keys and values.

    Args:
        score: fits queries to keys.
        position: its bias is added to the scores. None = no positions.
        prepared: the position's preparation for its bias.
        score_mods: change the scaled products, in order, before the bias is added.
        normalizer: turns scores into weights.
        where: positions and mask.
        scale: factor on the products.
        dropout: fraction of the weights that is dropped; 0 outside training.
    """

    score: Score
    position: Position | None
    prepared: Any
    score_mods: Iterable[ScoreMod]
    normalizer: Normalizer
    where: Where
    scale: float
    dropout: float

    def bias(self, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor | None:
        """Return the position's bias elementwise; persistent keys get none."""
        if self.position is None or not self.position.biased:
            return None
        if not self.where.memory:
            return self.position.bias(b, h, i, j, self.prepared)
        inside = self.position.bias(b, h, i, (j - self.where.memory).clamp(min=0), self.prepared)
        return torch.where(j < self.where.memory, 0.0, inside)

    def modify(self, score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """Modify one scaled product; flex_attention's score_mod."""
        for mod in self.score_mods:
            score = mod(score)
        bias = self.bias(b if self.rows_differ else torch.zeros_like(b), h, i, j)
        return score if bias is None else score + bias

    @property
    def rows_differ(self) -> bool:
        """True if the bias differs between rows."""
        return self.where.rows > 1 or (self.position is not None and self.position.per_row)

    def dense_bias(self, batch: int, heads: int) -> Tensor | None:
        """Return the position's bias as a tensor (#b h i j), one row if all rows share it."""
        b, i, j = self.where.build_indices(batch if self.rows_differ else 1)
        return self.bias(b, torch.arange(heads, device=b.device).view(1, -1, 1, 1), i, j)

    def pad_to_blocks(self) -> "Scoring":
        """Append queries and keys, whose results are discarded, up to whole blocks of flex_attention."""
        where, prepared = self.where.pad_to_blocks(), self.prepared
        if self.position is not None and self.position.biased:
            queries = where.queries.shape[-1] - self.where.queries.shape[-1]
            prepared = self.position.pad(prepared, queries, where.keys.shape[-1] - self.where.keys.shape[-1])
        return replace(self, where=where, prepared=prepared)
