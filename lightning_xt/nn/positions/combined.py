from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.nn.positions.base import Position, PositionFactory
from lightning_xt.system.option_checks import check_slots


class Combined(Position):
    """Apply several positions at once: rotations one after another, biases and pairwise terms added.

    Args:
        positions: the positions, in order.
    """

    @check_slots
    def __init__(self, shape: AttentionShape, *, positions: Sequence[PositionFactory]) -> None:
        super().__init__()
        if not positions:
            raise ValueError("position: Combined has an empty list of positions; give at least one, or position null")
        parts = [factory(shape) for factory in positions]
        moving = next((type(part).__name__ for part in parts if type(part).place is not Position.place), None)
        if moving is not None:
            raise ValueError(
                f"position: Combined has {moving}, which draws the positions that its parts share; give {moving} "
                "the Combined, as its option position"
            )
        self.heads = shape.heads
        self.positions = nn.ModuleList(parts)
        self.backends = frozenset.intersection(*(part.backends for part in parts))
        self.biased = any(part.biased for part in parts)
        self.paired = any(part.paired for part in parts)
        self.looks_back = any(part.looks_back for part in parts)
        self.lowers_scores = any(part.lowers_scores for part in parts)
        self.per_row = any(part.per_row for part in parts)
        self.shared = tuple(each for part in parts for each in part.shared)
        self.rotates_alike = all(part.rotates_alike for part in parts)

    @property
    def parts(self) -> list[Position]:
        """The positions, in order."""
        return cast(list[Position], list(self.positions))

    def rotate_queries(self, q: Float[Tensor, "b h i d"], at: Int[Tensor, "#b i"]) -> Float[Tensor, "b h i _"]:
        for part in self.parts:
            q = part.rotate_queries(q, at)
        return q

    def rotate_keys(self, k: Float[Tensor, "b g j d"], at: Int[Tensor, "#b j"]) -> Float[Tensor, "b g j _"]:
        for part in self.parts:
            k = part.rotate_keys(k, at)
        return k

    def share(self, trace: Trace) -> Trace:
        for part in self.parts:
            trace = part.share(trace)
        return trace

    def prepare(
        self, x: Float[Tensor, "b i D"], where: Where, window: int | None, cache: CallCache | None, trace: Trace
    ) -> "_Prepared":
        parts = enumerate(self.parts)
        scopes = [(part, None if cache is None else cache.branch(str(index))) for index, part in parts]
        own = tuple(part.prepare(x, where, window, scope, trace) for part, scope in scopes)
        return _Prepared(own, where, x.shape[0] if self.per_row else where.rows)

    def pad(self, p: Any, queries: int, keys: int) -> "_Prepared":
        parts = tuple(part.pad(own, queries, keys) for part, own in zip(self.parts, p.parts, strict=True))
        return _Prepared(parts, p.where.pad(queries, keys), p.rows)

    def bias(self, b: Tensor, h: Tensor, i: Tensor, j: Tensor, p: Any) -> Float[Tensor, "..."]:
        # A part whose bias all rows share may have prepared one row only.
        first = b if p.where.rows > 1 else torch.zeros_like(b)
        pairs = [(part, own) for part, own in zip(self.parts, p.parts, strict=True) if part.biased]
        biases = [part.bias(b if part.per_row else first, h, i, j, own) for part, own in pairs]
        return sum(biases[1:], biases[0])

    def dense(self, p: Any) -> Float[Tensor, "_ h i j"] | None:
        pairs = [(part, own) for part, own in zip(self.parts, p.parts, strict=True) if part.biased]
        found = [(part, own, part.dense(own)) for part, own in pairs]
        if all(dense is None for _, _, dense in found):
            return None
        h = torch.arange(self.heads, device=p.where.queries.device).view(1, -1, 1, 1)
        biases = []
        for part, own, dense in found:
            b, i, j = p.where.drop_memory().build_indices(p.rows if part.per_row else p.where.rows)
            biases.append(part.bias(b, h, i, j, own) if dense is None else dense)
        return sum(biases[1:], biases[0])

    def pairwise(
        self,
        scores: Float[Tensor, "b h i j"],
        q: Float[Tensor, "b h i d"],
        k: Float[Tensor, "b h j d"],
        where: Where,
        p: Any,
        scale: float,
    ) -> Float[Tensor, "b h i j"]:
        pairs = [(part, own) for part, own in zip(self.parts, p.parts, strict=True) if part.paired]
        added = [part.pairwise(scores, q, k, where, own, scale) for part, own in pairs]
        return sum(added[1:], added[0])


class _Prepared(NamedTuple):
    """Preparations of all parts, with positions, and the number of rows that differ."""

    parts: tuple[Any, ...]
    where: Where
    rows: int
