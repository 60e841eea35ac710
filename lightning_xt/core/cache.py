"""Decoding state of a model's layers and embeddings, from one forward to the next.

A cache belongs to the caller, never to a module. There is one `CallCache` per call of a layer, so a layer that a
looped or tied model calls several times has one cache for each of its calls, and one per embedding, after those of the
layers. The parts of a layer declare their buffers by name when they first append to them: rotated keys and values,
latents, the tail of a token shift, the sums of forget gates, the keys and values of a fixed context.

Rows may have different lengths. A token's slot is its position, so the right padding in a row's slots is at later
positions than the row's next query, is seen by no query, and is overwritten by the tokens that follow.

    full      slot = position                       capacity slots
    window    slot = position modulo the size       window + slack slots; `truncate` removes up to slack tokens

A forward stands between `begin` and `commit`. In between it reads only tensors and numbers that seldom change, so that
a decode step over a `static` cache is compiled once and serves every length.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import copy

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.extent import Extent, check_lengths, check_reach, project_context
from lightning_xt.core.fixed_context import FixedContext, move_rows


class Cache:
    """Cache of one batch of sequences that are decoded.

    Args:
        batch: number of rows.
        capacity: most tokens that a row will ever hold, prompt and right padding included.
        calls: number of calls of layers and embeddings in one forward.
        device: device of the row lengths. None = the default device.
        slack: tokens that a window keeps beyond its width; `truncate` can remove as many.
        window: tokens that every reader may look back, itself included. None = each reader's own window.
        static: True if the shapes of decode steps change once in `GROWTH` tokens, for compiled steps.
        recurrent: names of the parts with a running state, from which `truncate` cannot remove tokens.
    """

    def __init__(
        self,
        batch: int,
        capacity: int,
        *,
        calls: int,
        device: torch.device | None = None,
        slack: int = 64,
        window: int | None = None,
        static: bool = False,
        recurrent: Sequence[str] = (),
    ) -> None:
        if batch < 1 or capacity < 1:
            raise ValueError(f"a cache needs at least one row and one token, not batch {batch}, capacity {capacity}")
        if window is not None and window < 1:
            raise ValueError(f"a cache's window is {window}; it must be at least 1 token, or None for any distance")
        check_reach(window, recurrent)
        self.extent = Extent(batch, capacity, device=device, slack=slack, window=window, static=static)
        self._marked: Tensor | None = None
        self._recurrent = frozenset(recurrent)
        self._calls = [CallCache(self.extent) for _ in range(calls)]

    def __getitem__(self, call: int) -> "CallCache":
        return self._calls[call]

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def lengths(self) -> Int[Tensor, " b"]:
        """Number of tokens of each row."""
        return self.extent.lengths

    @property
    def bound(self) -> int:
        """Most tokens of any row."""
        return self.extent.bound

    @property
    def empty(self) -> bool:
        """True if no row holds a token."""
        return self.extent.empty

    @property
    def capacity(self) -> int:
        """Most tokens that a row can hold."""
        return self.extent.capacity

    def begin(self, n: int, lengths: Int[Tensor, "_"] | None = None, *, rows: int | None = None) -> None:
        """Announce a forward over n new tokens a row.

        Args:
            n: number of new tokens, right padding included.
            lengths: number of real new tokens of each row. None = all.
            rows: number of rows of the tokens. None = those of the cache.

        Raises:
            ValueError: the tokens do not fit, or the lengths are not theirs.
        """
        held, bound = self.lengths.shape[0], self.bound
        if rows is not None and rows != held:
            raise ValueError(
                f"the cache has {held} row(s), but {rows} were given; use new_cache({rows}, ...), or repeat or select "
                "its rows first"
            )
        if bound + n > self.capacity:
            raise ValueError(
                f"the cache holds {self.capacity} tokens a row, {bound} are taken and {n} more were given; use "
                f"new_cache(..., capacity={bound + n}) or more"
            )
        check_lengths(lengths, held, n)
        self.extent.begin(n, lengths)

    def commit(self) -> None:
        """Count the announced tokens as cached."""
        self.extent.commit()

    def set_context(self, context: Float[Tensor, "b m c"], mask: Bool[Tensor, "b m"] | None) -> None:
        """Remember which context the rows begin with."""
        self.extent.contexts = project_context(context, mask)

    def check_context(self, context: Float[Tensor, "b m c"], mask: Bool[Tensor, "b m"] | None) -> None:
        """Refuse another context than the rows began with, whose keys and values are cached.

        Raises:
            ValueError: a row has another context.
        """
        given, known = project_context(context, mask), self.extent.contexts
        if not torch.allclose(given, known, rtol=0.0, atol=1e-4, equal_nan=True):
            raise ValueError(
                "the cached rows began with another context, and cross-attention reads a context only once; give the "
                "same one or none, or begin again with an empty cache"
            )

    def truncate(self, length: int | Int[Tensor, " b"]) -> None:
        """Remove every token from a position on, for speculative decoding.

        Args:
            length: number of tokens to keep, for all rows or for each; a shorter row keeps all.

        Raises:
            ValueError: a window has overwritten tokens that would be visible again, or a part has a running state.
        """
        if isinstance(length, int) and length < 0:
            raise ValueError(f"a cache cannot keep {length} tokens; give 0 or more")
        running = sorted(self._recurrent or {name for call in self._walk() for name in call.running})
        if running:
            raise ValueError(
                f"cannot remove tokens: {', '.join(running)} is a running state without a past; decode again from the "
                "start"
            )
        extent = self.extent
        lengths = extent.lengths.clamp(max=length) if isinstance(length, int) else extent.lengths.minimum(length)
        # An emptied row needs nothing that was overwritten.
        back = int(((extent.written - lengths) * (lengths > 0)).max()) if self._has_wrapped() else 0
        if back > extent.slack:
            raise ValueError(
                f"cannot remove {back} tokens: a window keeps {extent.slack} beyond its width; use "
                f"new_cache(..., slack={back})"
            )
        extent.lengths = lengths
        extent.written = torch.where(lengths > 0, extent.written, 0)
        if isinstance(length, int):
            extent.bound = min(extent.bound, length)
        else:
            extent.uniform = False
            extent.bound = int(lengths.max())
        extent.empty = extent.bound == 0
        if extent.empty:
            # The next forward may have another context.
            for call in self._walk():
                call.fixed.clear()

    def select(self, rows: Int[Tensor, " b"]) -> None:
        """Keep, repeat or reorder rows, for beam search; `rows` has the old row of each new one."""
        for call in self._walk():
            call.select_contexts(rows, len(self.lengths))
        self.reorder(rows)

    def repeat(self, times: int) -> None:
        """Repeat each row in place `times` times; the repeated rows share their fixed context without a copy."""
        self.reorder(torch.arange(len(self.lengths), device=self.lengths.device).repeat_interleave(times))

    def reorder(self, rows: Int[Tensor, " b"]) -> None:
        """Select rows within groups that share a context, each of which stays whole; the contexts stay in place."""
        self._marked = None
        for call in self._walk():
            call.reorder(rows)
        self.extent.change_rows(lambda t: t[rows])

    def retire(self, moves: Sequence[tuple[int, int]], rows: int) -> None:
        """Remove the last rows after moving rows that stay over rows that do not, which copies little.

        Moves are (from, to), and `rows` is the number of rows that stay. Call `set_lengths` afterwards.
        """
        source = target = None
        if moves:
            source, target = torch.tensor(moves, device=self.lengths.device).T
        self.extent.change_rows(lambda t: move_rows(t, source, target, rows))
        self._marked = None
        for call in self._walk():
            call.retire(source, target, rows)

    def widen(self, rows: int, reserve: int) -> None:
        """Add rows up to a number of rows; call `overwrite` and `set_lengths` afterwards.

        Memory grows to `reserve` rows if it has no room, so that requests that come one by one seldom copy the cache.
        """
        self.extent.change_rows(lambda t: torch.cat((t, t.new_zeros(rows - len(t)))))
        self.extent.uniform, self._marked = False, None
        for call in self._walk():
            call.widen(rows, reserve)

    def overwrite(self, rows: Int[Tensor, " k"], other: "Cache") -> None:
        """Overwrite rows by those of another cache of the same model.

        Args:
            rows: the rows to overwrite.
            other: a cache of at most the same capacity, with the same slack and window.

        Raises:
            ValueError: a row does not fit.
        """
        extent, theirs = self.extent, other.extent
        if theirs.bound > extent.capacity:
            raise ValueError(f"a row of up to {theirs.bound} tokens does not fit into a cache of {extent.capacity}")
        extent.lengths = extent.lengths.index_copy(0, rows, theirs.lengths)
        extent.written = extent.written.index_copy(0, rows, theirs.written)
        extent.contexts = extent.contexts.index_copy(0, rows, theirs.contexts)
        extent.bound, extent.uniform = max(extent.bound, theirs.bound), False
        extent.empty = extent.bound == 0
        self._marked = None
        for call, new in zip(self._calls, other._calls, strict=True):
            call.overwrite(rows, new)

    def mark_for_compiler(self) -> None:
        """Mark for torch.compile which sizes change between steps, and which tensors stay in their place."""
        extent = self.extent
        if self._marked is extent.slots:
            return
        self._marked = extent.slots
        several = len(extent.lengths) > 1
        torch._dynamo.maybe_mark_dynamic(extent.slots, 0)
        for call in self._walk():
            call.mark_for_compiler(several)

    def collect(self) -> list[dict[str, Tensor]]:
        """Return the tensors that forwards change, of each call by name."""
        return [call.collect() for call in self._calls]

    def collect_contexts(self) -> list[dict[str, FixedContext]]:
        """Return the contexts, of each call by name."""
        return [call.collect_contexts() for call in self._calls]

    def build_step(
        self,
        lengths: Int[Tensor, " b"],
        n: int,
        tensors: Sequence[Mapping[str, Tensor]],
        contexts: Sequence[Mapping[str, FixedContext]],
    ) -> "Cache":
        """Build the cache of a functional step, from this one of the same parts, which stays as it is.

        Args:
            lengths: number of tokens that each row holds.
            n: number of announced tokens; at most the slack.
            tensors: those of `collect`, whose rows may be others. The step writes into them.
            contexts: those of `collect_contexts`.
        """
        made = copy(self)
        made.extent = self.extent.build_step(lengths, n)
        calls = zip(self._calls, tensors, contexts, strict=True)
        made._calls = [call.replace(own, known, made.extent) for call, own, known in calls]
        return made

    def set_lengths(self, lengths: Sequence[int]) -> None:
        """Set the bound by each row's number of tokens, which the host knows without waiting for the device."""
        self.extent.bound, self.extent.uniform = max(lengths), min(lengths) == max(lengths)

    def clear(self, rows: Int[Tensor, " k"]) -> None:
        """Clear rows that have finished but are still in the batch. Call `set_lengths` afterwards."""
        extent = self.extent
        extent.lengths, extent.written = (t.index_fill(0, rows, 0) for t in (extent.lengths, extent.written))
        extent.uniform = False
        for call in self._walk():
            call.clear(rows)

    def _walk(self) -> Iterator[CallCache]:
        """Yield the cache of each call, those of branches included."""
        for call in self._calls:
            yield from call.walk()

    def _has_wrapped(self) -> bool:
        return bool((self.extent.written > min(call.smallest for call in self._walk())).any())
