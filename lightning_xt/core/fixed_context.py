"""What decoding remembers of a context."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, eq=False)
class FixedContext:
    """Keys and values of a context, made once and read at each step.

    Args:
        keys: one row for each row of the cache, or for each group of rows that share it.
        values: likewise.
        mask: which of the context's vectors are real. None = all.
    """

    keys: Float[Tensor, "c *heads m d"]
    values: Float[Tensor, "c *heads m e"]
    mask: Bool[Tensor, "c m"] | None

    def select(self, rows: Int[Tensor, " b"], batch: int) -> "FixedContext":
        """The contexts of these rows.

        Args:
            rows: of the cache; where contexts are shared, whole groups.
            batch: rows that the cache had.
        """
        group = batch // len(self.keys)
        return self._map(lambda t: t[rows[::group] // group])

    def retire(self, source: Tensor | None, target: Tensor | None, rows: int) -> "FixedContext":
        """The contexts of the rows that stay."""
        keys, values = (move_rows(t, source, target, rows) for t in (self.keys, self.values))
        # The mask is the caller's own, and one tensor for all layers.
        mask = None if self.mask is None else move_rows(self.mask.clone(), source, target, rows)
        return FixedContext(keys, values, mask)

    def place(self, rows: Int[Tensor, " k"], other: "FixedContext") -> "FixedContext":
        """These, with others in the place of some."""
        width = max(self.keys.shape[-2], other.keys.shape[-2])
        ours, theirs = self.pad(width), other.pad(width)
        keys = ours.keys.index_copy(0, rows, theirs.keys)
        values = ours.values.index_copy(0, rows, theirs.values)
        if ours.mask is None and theirs.mask is None:
            return FixedContext(keys, values, None)
        return FixedContext(keys, values, ours.real.index_copy(0, rows, theirs.real))

    def spread(self, batch: int, rows: Int[Tensor, " k"]) -> "FixedContext":
        """As many rows, these among them; the others see vectors of zeros."""
        empty = self._map(lambda t: t.new_zeros(batch, *t.shape[1:]))
        mask = torch.ones(batch, self.keys.shape[-2], dtype=torch.bool, device=self.keys.device)
        return FixedContext(empty.keys, empty.values, mask).place(rows, self)

    def pad(self, width: int) -> "FixedContext":
        """The same with so many vectors, those that are added masked."""
        more = width - self.keys.shape[-2]
        if more == 0:
            return self
        keys, values = (functional.pad(t, (0, 0, 0, more)) for t in (self.keys, self.values))
        return FixedContext(keys, values, functional.pad(self.real, (0, more)))

    @property
    def real(self) -> Bool[Tensor, "c m"]:
        """Which vectors are real."""
        shape = (self.keys.shape[0], self.keys.shape[-2])
        return torch.ones(shape, dtype=torch.bool, device=self.keys.device) if self.mask is None else self.mask

    def _map(self, change: Callable[[Tensor], Tensor]) -> "FixedContext":
        return FixedContext(change(self.keys), change(self.values), None if self.mask is None else change(self.mask))


def move_rows(t: Tensor, source: Int[Tensor, " k"] | None, target: Int[Tensor, " k"] | None, rows: int) -> Tensor:
    """The first rows of a tensor after others have been written over some of them."""
    if source is not None and target is not None:
        t[target] = t[source]
    return t[:rows]
