"""The parts and positions by which attention scores queries against keys."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.where import Where
from lightning_xt.nn.normalizers.base import Normalizer
from lightning_xt.nn.positions.base import Position
from lightning_xt.nn.score_mods.base import ScoreMod
from lightning_xt.nn.scores.base import Score


class Recorded(NamedTuple):
    """Scores and weights of all pairs.

    Args:
        unbiased: scores after the score mods, before the bias of positions.
        scores: scores before the normalizer.
        weights: weights, before dropout.
    """

    unbiased: Float[Tensor, "b h i j"]
    scores: Float[Tensor, "b h i j"]
    weights: Float[Tensor, "b h i j"]


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
        mods_prepared: the preparations of the score mods, in order.
        own_bias: bias of the caller, for all rows and heads or for each. None = none.
        record: list to which plain products append what they compute. None = nothing is recorded.
    """

    score: Score
    position: Position | None
    prepared: Any
    score_mods: Iterable[ScoreMod]
    normalizer: Normalizer
    where: Where
    scale: float
    dropout: float
    mods_prepared: Sequence[Any] = ()
    own_bias: Float[Tensor, "#b #h i j"] | None = None
    record: "list[Recorded] | None" = None

    def bias(self, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor | None:
        """Return the bias of the position and of the caller elementwise; persistent keys get none."""
        own = (j - self.where.memory).clamp(min=0) if self.where.memory else j
        inside = None
        if self.position is not None and self.position.biased:
            inside = self.position.bias(b if self._positions_differ else torch.zeros_like(b), h, i, own, self.prepared)
        if self.own_bias is not None:
            rows, heads = self.own_bias.shape[:2]
            given = self.own_bias[
                b if rows > 1 else torch.zeros_like(b), h if heads > 1 else torch.zeros_like(h), i, own
            ]
            inside = given if inside is None else inside + given
        return inside if inside is None or not self.where.memory else torch.where(j < self.where.memory, 0.0, inside)

    def modify(self, score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """Modify one scaled product; flex_attention's score_mod."""
        for mod in self.score_mods:
            score = mod(score)
        bias = self.bias(b if self.rows_differ else torch.zeros_like(b), h, i, j)
        return score if bias is None else score + bias

    @property
    def rows_differ(self) -> bool:
        """True if the bias differs between rows."""
        return self._positions_differ or (self.own_bias is not None and len(self.own_bias) > 1)

    @property
    def _positions_differ(self) -> bool:
        # Positions were prepared before persistent keys, of which each row may see others.
        return self.where.drop_memory().rows > 1 or (self.position is not None and self.position.per_row)

    def dense_bias(self, batch: int, heads: int) -> Tensor | None:
        """Return the position's bias as a tensor (#b h i j), one row if all rows share it."""
        memory = self.where.memory
        fast = self.position.dense(self.prepared) if self.position is not None and self.position.biased else None
        if fast is not None:
            fast = fast if self.own_bias is None else fast + self.own_bias
            return nn.functional.pad(fast, (memory, 0)) if memory else fast
        b, i, j = self.where.build_indices(batch if self.rows_differ else 1)
        return self.bias(b, torch.arange(heads, device=b.device).view(1, -1, 1, 1), i, j)

    def pad_to_blocks(self) -> "Scoring":
        """Append queries and keys, whose results are discarded, up to whole blocks of flex_attention."""
        where, prepared = self.where.pad_to_blocks(), self.prepared
        if self.position is not None and self.position.biased:
            queries = where.queries.shape[-1] - self.where.queries.shape[-1]
            prepared = self.position.pad(prepared, queries, where.keys.shape[-1] - self.where.keys.shape[-1])
        own_bias = self.own_bias
        if own_bias is not None:
            more = [
                new.shape[-1] - old.shape[-1]
                for new, old in ((where.keys, self.where.keys), (where.queries, self.where.queries))
            ]
            own_bias = nn.functional.pad(own_bias, (0, more[0], 0, more[1]))
        return replace(self, where=where, prepared=prepared, own_bias=own_bias)
