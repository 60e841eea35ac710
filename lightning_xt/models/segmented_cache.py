"""Decoding state of a decoder that reads segments."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.functional import pad

from lightning_xt.core.cache import Cache
from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.memories import Memories
from lightning_xt.nn.segments.base import Segments

Row = dict[str, Tensor]
"""Inputs of one row besides its tokens, by name."""


PADDING = 16
"""Most tokens appended at once to rows at different places of their segments."""


class SegmentedCache:
    """Cache of the current segment of each row, with the memories that it began with.

    Rows are in different segments, and reach the end of one at different times.

        tokens    the parts that begin again with each segment      counts the tokens of the segment
        stream    the calls that see memories, of a segment with    counts the remembered tokens too

    Args:
        rows: number of rows.
        capacity: most tokens that a row will hold.
        make: makes a cache of a number of rows and tokens a row.
        seeing: numbers of the calls with memories.
        segments: the decoder's.
    """

    def __init__(
        self, rows: int, capacity: int, make: Callable[[int, int], Cache], seeing: frozenset[int], segments: Segments
    ) -> None:
        self.capacity, self.seeing, self.length = capacity, seeing, segments.length
        self._segments, self._make = segments, make
        # A row at the end of its segment gets the padding of others.
        most = min(capacity, segments.length) + PADDING
        self.tokens, self.stream = make(rows, most), make(rows, segments.memory + most)
        device = self.tokens.lengths.device
        self.memories: Memories | None = None
        """Memories of each row, of which a row that has fewer sees the last."""
        self.ids = torch.zeros(rows, segments.length, dtype=torch.long, device=device)
        self.types: Tensor | None = None
        self.inputs: list[Row] = [{} for _ in range(rows)]
        self.counts, self.totals, self.remembered = [0] * rows, [0] * rows, [0] * rows
        """Tokens of each row's segment, of the row, and of its memories, which the host knows."""

    def make_empty(self, rows: int) -> "SegmentedCache":
        """Make an empty cache of the same sizes with another number of rows."""
        return SegmentedCache(rows, self.capacity, self._make, self.seeing, self._segments)

    def __getitem__(self, call: int) -> CallCache:
        return (self.stream if call in self.seeing else self.tokens)[call]

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def bound(self) -> int:
        """Most tokens of any row."""
        return max(self.totals)

    @property
    def empty(self) -> bool:
        """True if no row holds a token."""
        return self.bound == 0

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.totals)

    def commit(self) -> None:
        """Count the announced tokens as cached."""
        self.tokens.commit()
        self.stream.commit()

    def truncate(self, length: int | Int[Tensor, " b"]) -> None:
        """Raise a ValueError: what a segment has become cannot be taken apart."""
        raise ValueError(
            f"cannot remove tokens: {type(self._segments).__name__} is a running state without a past; decode again "
            "from the start"
        )

    def select(self, rows: Int[Tensor, " b"]) -> None:
        """Keep, repeat or reorder rows; `rows` has the old row of each new one."""
        self.tokens.select(rows)
        self.stream.select(rows)
        self._select_own(rows.tolist())

    def repeat(self, times: int) -> None:
        """Repeat each row in place `times` times."""
        self.tokens.repeat(times)
        self.stream.repeat(times)
        self._select_own([row for row in range(self.num_rows) for _ in range(times)])

    def reorder(self, rows: Int[Tensor, " b"]) -> None:
        """Select rows within groups that share a context, each of which stays whole."""
        self.tokens.reorder(rows)
        self.stream.reorder(rows)
        self._select_own(rows.tolist())

    def retire(self, moves: Sequence[tuple[int, int]], rows: int) -> None:
        """Remove the last rows after moving rows (from, to). Call `set_lengths` afterwards."""
        self.tokens.retire(moves, rows)
        self.stream.retire(moves, rows)
        order = list(range(self.num_rows))
        for source, target in moves:
            order[target] = source
        self._select_own(order[:rows])

    def widen(self, rows: int, reserve: int) -> None:
        """Add rows up to a number of rows. Call `overwrite` and `set_lengths` afterwards."""
        before = self.num_rows
        self.tokens.widen(rows, reserve)
        self.stream.widen(rows, reserve)
        self._select_own([*range(before), *[0] * (rows - before)])
        self.clear(torch.arange(before, rows, device=self.ids.device))

    def overwrite(self, rows: Int[Tensor, " k"], other: "SegmentedCache") -> None:
        """Overwrite rows by those of another cache of the same model."""
        self.tokens.overwrite(rows, other.tokens)
        self.stream.overwrite(rows, other.stream)
        self.set_memories(rows, other.memories)
        self.ids[rows] = other.ids
        if other.types is not None:
            self.types = torch.zeros_like(self.ids) if self.types is None else self.types
            self.types[rows] = other.types
        for row, source in zip(rows.tolist(), range(other.num_rows), strict=True):
            self.inputs[row], self.counts[row] = other.inputs[source], other.counts[source]
            self.totals[row], self.remembered[row] = other.totals[source], other.remembered[source]
        self._set_bounds()

    def set_memories(self, rows: Int[Tensor, " k"], new: Memories | None) -> None:
        """Set the memories of some rows."""
        if new is None:
            mask = torch.zeros(self.num_rows, dtype=torch.bool, device=rows.device).index_fill(0, rows, True)
            self.memories = None if self.memories is None else self.memories.reset(mask)
            return
        m = new.num_tokens if self.memories is None else max(new.num_tokens, self.memories.num_tokens)
        new = new.pad(m)
        # A row of zeros for each of this cache, until its own memories are there.
        before = new.select([0] * self.num_rows).reset(torch.ones(self.num_rows, dtype=torch.bool, device=rows.device))
        self.memories = (before if self.memories is None else self.memories.pad(m)).overwrite(rows, new)

    def set_lengths(self, lengths: Sequence[int]) -> None:
        """Set the number of tokens of each row, which the host knows; an emptied row has none."""
        self.totals = list(lengths)
        self.counts = [(total - 1) % self.length + 1 if total else 0 for total in self.totals]
        self.remembered = [m if total else 0 for m, total in zip(self.remembered, self.totals, strict=True)]
        self._set_bounds()

    def clear(self, rows: Int[Tensor, " k"]) -> None:
        """Clear rows that have finished but are still in the batch. Call `set_lengths` afterwards."""
        self.tokens.clear(rows)
        self.stream.clear(rows)
        self.set_memories(rows, None)
        for row in rows.tolist():
            self.counts[row] = self.totals[row] = self.remembered[row] = 0

    def keep(self, tokens: Int[Tensor, "b n"], types: Int[Tensor, "b n"] | None, taken: Sequence[int]) -> None:
        """Keep the first `taken` new tokens of each row, of which memories will be made at the end of the segment."""
        if min(taken) == max(taken) and min(self.counts) == max(self.counts):
            span = slice(self.counts[0], self.counts[0] + taken[0])
            self.ids[:, span] = tokens[:, : taken[0]]
            self._keep_types(slice(None), span, types, taken[0])
        else:
            for row, (start, count) in enumerate(zip(self.counts, taken, strict=True)):
                self.ids[row, start : start + count] = tokens[row, :count]
                self._keep_types(row, slice(start, start + count), types, count)
        self.counts = [a + b for a, b in zip(self.counts, taken, strict=True)]
        self.totals = [a + b for a, b in zip(self.totals, taken, strict=True)]
        self._set_bounds()

    def _set_bounds(self) -> None:
        """Set the lengths of both caches: rows that begin again would raise the bound for ever."""
        self.tokens.set_lengths(self.counts)
        self.stream.set_lengths([a + b for a, b in zip(self.counts, self.remembered, strict=True)])

    def _keep_types(self, rows: int | slice, span: slice, types: Tensor | None, count: int) -> None:
        if types is not None:
            self.types = torch.zeros_like(self.ids) if self.types is None else self.types
            self.types[rows, span] = types[rows, :count]

    def _select_own(self, rows: Sequence[int]) -> None:
        index = torch.tensor(rows, device=self.ids.device)
        self.ids = self.ids[index]
        self.types = None if self.types is None else self.types[index]
        self.memories = None if self.memories is None else self.memories.select(index)
        self.inputs = [self.inputs[row] for row in rows]
        self.counts, self.totals, self.remembered = (
            [values[row] for row in rows] for values in (self.counts, self.totals, self.remembered)
        )


def stack_rows(rows: Sequence[Row]) -> Row:
    """Stack the inputs of rows; contexts of different lengths are padded on the right."""
    names = {name for row in rows for name in row}
    width = max((row["context"].shape[1] for row in rows if "context" in row), default=0)
    if any(row["context"].shape[1] < width for row in rows if "context" in row):
        names.add("context_mask")
    for name in names - {"context_mask"}:
        if any(name not in row for row in rows):
            raise ValueError(
                f"rows that are decoded together need the same inputs, but only some have {name}; give it to all or to "
                "none"
            )
    stacked: Row = {}
    for name in sorted(names):
        values = [row[name] if name in row else _make_mask(row) for row in rows]
        if name in ("context", "context_mask"):
            values = [pad(t, (0, 0) * (t.dim() - 2) + (0, width - t.shape[1])) for t in values]
        stacked[name] = torch.cat(values)
    return stacked


def _make_mask(row: Row) -> Tensor:
    """Make the mask of a context without padding."""
    return torch.ones(row["context"].shape[:2], dtype=torch.bool, device=row["context"].device)
