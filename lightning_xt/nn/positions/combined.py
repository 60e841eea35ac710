from collections.abc import Sequence
from typing import Any, cast

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
        self.positions = nn.ModuleList(parts)
        self.backends = frozenset.intersection(*(part.backends for part in parts))
        self.biased = any(part.biased for part in parts)
        self.paired = any(part.paired for part in parts)
        self.looks_back = any(part.looks_back for part in parts)
        self.per_row = any(part.per_row for part in parts)
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
    ) -> tuple[bool, tuple[Any, ...]]:
        parts = enumerate(self.parts)
        branches = [(part, None if cache is None else cache.branch(str(index))) for index, part in parts]
        return where.rows > 1, tuple(part.prepare(x, where, window, branch, trace) for part, branch in branches)

    def pad(self, p: Any, queries: int, keys: int) -> tuple[bool, tuple[Any, ...]]:
        rows_differ, parts = p
        return rows_differ, tuple(part.pad(own, queries, keys) for part, own in zip(self.parts, parts, strict=True))

    def bias(self, b: Tensor, h: Tensor, i: Tensor, j: Tensor, p: Any) -> Float[Tensor, "..."]:
        rows_differ, parts = p
        # A part whose bias all rows share may have prepared one row only.
        first = b if rows_differ else torch.zeros_like(b)
        pairs = [(part, own) for part, own in zip(self.parts, parts, strict=True) if part.biased]
        biases = [part.bias(b if part.per_row else first, h, i, j, own) for part, own in pairs]
        return sum(biases[1:], biases[0])

    def pairwise(
        self,
        scores: Float[Tensor, "b h i j"],
        q: Float[Tensor, "b h i d"],
        k: Float[Tensor, "b h j d"],
        where: Where,
        p: Any,
    ) -> Float[Tensor, "b h i j"]:
        pairs = [(part, own) for part, own in zip(self.parts, p[1], strict=True) if part.paired]
        added = [part.pairwise(scores, q, k, where, own) for part, own in pairs]
        return sum(added[1:], added[0])
