"""Keys and values of a context while decoding."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, eq=False)
class FixedContext:
    """Keys and values of a context, projected once and read at each step.

    Args:
        keys: one row for each row of the cache, or for each group of rows that share it.
        values: the values of the keys.
        mask: True for the real vectors of the context. None = all.
    """

    keys: Float[Tensor, "contexts *heads m d"]
    values: Float[Tensor, "contexts *heads m e"]
    mask: Bool[Tensor, "contexts m"] | None

    def select(self, rows: Int[Tensor, " b"], batch: int) -> "FixedContext":
        """Select the contexts of some of `batch` rows: of whole groups, if rows share contexts."""
        group = batch // len(self.keys)
        return self._map(lambda t: t[rows[::group] // group])

    def retire(self, source: Tensor | None, target: Tensor | None, rows: int) -> "FixedContext":
        """Move contexts as the rows of a cache are moved, then keep only the first."""
        keys, values = (move_rows(t, source, target, rows) for t in (self.keys, self.values))
        # The mask is the caller's own, and one tensor for all layers.
        mask = None if self.mask is None else move_rows(self.mask.clone(), source, target, rows)
        return FixedContext(keys, values, mask)

    def widen(self, rows: int) -> "FixedContext":
        """Add masked contexts up to a number of rows, each of which has its own."""
        more = rows - len(self.keys)
        wide = self._map(lambda t: torch.cat((t, t.new_zeros(more, *t.shape[1:]))))
        # A row without any real vector would have no weights.
        mask = (
            wide.mask
            if wide.mask is None
            else wide.mask.index_fill(0, torch.arange(rows - more, rows, device=wide.mask.device), True)
        )
        return FixedContext(wide.keys, wide.values, mask)

    def overwrite(self, rows: Int[Tensor, " k"], other: "FixedContext") -> "FixedContext":
        """Overwrite the contexts of some rows by those of another cache."""
        width = max(self.keys.shape[-2], other.keys.shape[-2])
        ours, theirs = self.pad(width), other.pad(width)
        keys = ours.keys.index_copy(0, rows, theirs.keys)
        values = ours.values.index_copy(0, rows, theirs.values)
        if ours.mask is None and theirs.mask is None:
            return FixedContext(keys, values, None)
        return FixedContext(keys, values, ours.real.index_copy(0, rows, theirs.real))

    def spread(self, batch: int, rows: Int[Tensor, " k"]) -> "FixedContext":
        """Make contexts for a whole batch: these at some rows, zeros at the others."""
        empty = self._map(lambda t: t.new_zeros(batch, *t.shape[1:]))
        mask = torch.ones(batch, self.keys.shape[-2], dtype=torch.bool, device=self.keys.device)
        return FixedContext(empty.keys, empty.values, mask).overwrite(rows, self)

    def pad(self, width: int) -> "FixedContext":
        """Append masked vectors up to a width."""
        more = width - self.keys.shape[-2]
        if more == 0:
            return self
        keys, values = (functional.pad(t, (0, 0, 0, more)) for t in (self.keys, self.values))
        return FixedContext(keys, values, functional.pad(self.real, (0, more)))

    @property
    def real(self) -> Bool[Tensor, "contexts m"]:
        """True for real vectors."""
        shape = (self.keys.shape[0], self.keys.shape[-2])
        return torch.ones(shape, dtype=torch.bool, device=self.keys.device) if self.mask is None else self.mask

    def _map(self, change: Callable[[Tensor], Tensor]) -> "FixedContext":
        return FixedContext(change(self.keys), change(self.values), None if self.mask is None else change(self.mask))


def widen_rows(t: Tensor, rows: int, reserve: int) -> Tensor:
    """Return a tensor with more rows, whose values mean nothing, in memory that has room for `reserve` rows.

    It is the memory of the tensor if that has room, such as after `move_rows`.
    """
    size = t[0].numel() * t.element_size()
    if not t.is_contiguous() or t.storage_offset() or t.untyped_storage().nbytes() < rows * size:
        wide = t.new_zeros(max(rows, reserve), *t.shape[1:])
        wide[: len(t)] = t
        t = wide
    return t.as_strided((rows, *t.shape[1:]), t.stride())


def move_rows(t: Tensor, source: Int[Tensor, " k"] | None, target: Int[Tensor, " k"] | None, rows: int) -> Tensor:
    """Write rows of a tensor over others in place, and return the first rows."""
    if source is not None and target is not None:
        t[target] = t[source]
    return t[:rows]
