"""Decoding state of a model's layers, from one forward to the next.

A cache belongs to the caller, never to a module. There is one `CallCache` per call of a layer, so a layer that a
looped or tied model calls several times has one cache for each of its calls. The parts of a layer declare their
buffers by name when they first append to them: rotated keys and values, latents, the tail of a token shift, the sums
of forget gates, the keys and values of a fixed context.

Rows may have different lengths. A token's slot is its position, so the right padding in a row's slots is at later
positions than the row's next query, is seen by no query, and is overwritten by the tokens that follow.

    full      slot = position                       capacity slots
    window    slot = position modulo the size       window + slack slots; `truncate` removes up to slack tokens

A forward stands between `begin` and `commit`. In between it reads only tensors and numbers that seldom change, so that
a decode step over a `static` cache is compiled once and serves every length.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.fixed_context import move_rows

GROWTH = 32
"""Tokens by which the shapes of a static cache grow; slots beyond a row's end are read in vain.

On CUDA the shapes double instead: a graph is recorded for each, which costs more than to read empty slots.
"""


class Cache:
    """Cache of one batch of sequences that are decoded.

    Args:
        batch: number of rows.
        capacity: most tokens that a row will ever hold, prompt and right padding included.
        calls: number of calls of layers in one forward.
        device: device of the row lengths. None = the default device.
        slack: tokens that a window keeps beyond its width; `truncate` can remove as many.
        window: tokens that every reader may look back, itself included. None = each reader's own window.
        static: True if the shapes of decode steps change once in `GROWTH` tokens, for compiled steps.
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
    ) -> None:
        if batch < 1 or capacity < 1:
            raise ValueError(f"a cache needs at least one row and one token, not batch {batch}, capacity {capacity}")
        if window is not None and window < 1:
            raise ValueError(f"a cache's window is {window}; it must be at least 1 token, or None for any distance")
        self.slack, self.window, self.static = slack, window, static
        self.lengths = torch.zeros(batch, dtype=torch.long, device=device)
        # One growth more, so that steps always see less than the whole buffer: a compiled step would distinguish both.
        self.capacity = self._round(capacity) + GROWTH if static else capacity
        self.bound = 0
        """Most tokens of any row. A number of the host, so that reading it never waits for the device."""
        self.uniform = True
        """True if every row holds exactly `bound` tokens."""
        self.empty = True
        """True if no row holds a token."""
        self.slots = torch.arange(0, device=device)
        """Positions of the slots that steps of a static cache see: all taken ones, and some empty ones."""
        self.written = torch.zeros_like(self.lengths)
        """One past the highest position that each row's slots have ever held; `truncate` does not lower it."""
        self.incoming = 0
        self._kept: Int[Tensor, " b"] | None = None
        self._marked: Tensor | None = None
        self._calls = [CallCache(self) for _ in range(calls)]

    def __getitem__(self, call: int) -> "CallCache":
        return self._calls[call]

    def __len__(self) -> int:
        return len(self._calls)

    def begin(self, n: int, lengths: Int[Tensor, " b"] | None = None) -> None:
        """Announce a forward over n new tokens a row.

        Args:
            n: number of new tokens, right padding included.
            lengths: number of real new tokens of each row. None = all.

        Raises:
            ValueError: the tokens do not fit.
        """
        if self.bound + n > self.capacity:
            raise ValueError(
                f"the cache holds {self.capacity} tokens a row, {self.bound} are taken and {n} more were given; use "
                f"new_cache(..., capacity={self.bound + n}) or more"
            )
        self.incoming, self._kept = n, lengths
        if self.static and not self.empty and self.bound + n > len(self.slots):
            self.slots = torch.arange(self._round(self.bound + n), device=self.lengths.device)

    def commit(self) -> None:
        """Count the announced tokens as cached."""
        # A window writes right padding too, unless more tokens came at once than its slack.
        reached = self.lengths + self.incoming if self.bound > 0 and self.incoming <= self.slack else self.count_kept()
        self.written = self.written.maximum(reached)
        self.lengths = self.count_kept()
        self.uniform = self.uniform and self._kept is None
        self.bound += self.incoming
        self.empty = self.bound == 0
        self.incoming, self._kept = 0, None

    def get_positions(self) -> Int[Tensor, "#b i"]:
        """Return the positions of the announced tokens."""
        steps = torch.arange(self.incoming, device=self.lengths.device)[None]
        return steps + (self.bound if not self.stepping and self.uniform else self.lengths[:, None])

    @property
    def end(self) -> int:
        """One past the last position that the announced tokens see, or a larger number."""
        return len(self.slots) if self.stepping else self.bound + self.incoming

    @property
    def unmasked(self) -> bool:
        """True if each row sees all that a buffer without a window returns."""
        return not self.stepping and self.uniform and self.incoming == 1

    @property
    def stepping(self) -> bool:
        """True for a compiled step, which must not depend on the lengths of rows."""
        return self.static and not self.empty

    def count_kept(self) -> Int[Tensor, " b"]:
        """Count each row's tokens, the announced ones included."""
        return self.lengths + (self.incoming if self._kept is None else self._kept)

    def truncate(self, length: int | Int[Tensor, " b"]) -> None:
        """Remove every token from a position on, for speculative decoding.

        Args:
            length: number of tokens to keep, for all rows or for each; a shorter row keeps all.

        Raises:
            ValueError: a window has overwritten tokens that would be visible again.
        """
        if isinstance(length, int) and length < 0:
            raise ValueError(f"a cache cannot keep {length} tokens; give 0 or more")
        running = sorted({name for call in self._calls for name in call.running})
        if running:
            raise ValueError(
                f"cannot remove tokens: {', '.join(running)} is a running state without a past; decode again from the "
                "start"
            )
        lengths = self.lengths.clamp(max=length) if isinstance(length, int) else self.lengths.minimum(length)
        # An emptied row needs nothing that was overwritten.
        back = int(((self.written - lengths) * (lengths > 0)).max()) if self._has_wrapped() else 0
        if back > self.slack:
            raise ValueError(
                f"cannot remove {back} tokens: a window keeps {self.slack} beyond its width; use "
                f"new_cache(..., slack={back})"
            )
        self.lengths = lengths
        self.written = torch.where(lengths > 0, self.written, 0)
        if isinstance(length, int):
            self.bound = min(self.bound, length)
        else:
            self.uniform = False
            self.bound = int(lengths.max())
        self.empty = self.bound == 0
        if self.empty:
            # The next forward may have another context.
            for call in self._calls:
                call.fixed.clear()

    def select(self, rows: Int[Tensor, " b"]) -> None:
        """Keep, repeat or reorder rows, for beam search; `rows` has the old row of each new one."""
        for call in self._calls:
            call.select_contexts(rows, len(self.lengths))
        self.reorder(rows)

    def repeat(self, times: int) -> None:
        """Repeat each row in place `times` times; the repeated rows share their fixed context without a copy."""
        self.reorder(torch.arange(len(self.lengths), device=self.lengths.device).repeat_interleave(times))

    def reorder(self, rows: Int[Tensor, " b"]) -> None:
        """Select rows within groups that share a context, each of which stays whole; the contexts stay in place."""
        self._marked = None
        for call in self._calls:
            call.reorder(rows)
        self.lengths, self.written = self.lengths[rows], self.written[rows]

    def retire(self, moves: Sequence[tuple[int, int]], rows: int) -> None:
        """Remove the last rows after moving rows that stay over rows that do not, which copies little.

        Moves are (from, to), and `rows` is the number of rows that stay. Call `set_lengths` afterwards.
        """
        source = target = None
        if moves:
            source, target = torch.tensor(moves, device=self.lengths.device).T
        self.lengths, self.written = (move_rows(t, source, target, rows) for t in (self.lengths, self.written))
        self._marked = None
        for call in self._calls:
            call.retire(source, target, rows)

    def overwrite(self, rows: Int[Tensor, " k"], other: "Cache") -> None:
        """Overwrite rows by those of another cache of the same model.

        Args:
            rows: the rows to overwrite.
            other: a cache of at most the same capacity, with the same slack and window.

        Raises:
            ValueError: a row does not fit.
        """
        if other.bound > self.capacity:
            raise ValueError(f"a row of up to {other.bound} tokens does not fit into a cache of {self.capacity}")
        self.lengths = self.lengths.index_copy(0, rows, other.lengths)
        self.written = self.written.index_copy(0, rows, other.written)
        self.bound, self.uniform = max(self.bound, other.bound), False
        self.empty = self.bound == 0
        self._marked = None
        for ours, theirs in zip(self._calls, other._calls, strict=True):
            ours.overwrite(rows, theirs)

    def mark_for_compiler(self) -> None:
        """Tell torch.compile which sizes change between steps, and which tensors stay in their place."""
        if self._marked is self.slots:
            return
        self._marked = self.slots
        several = len(self.lengths) > 1
        torch._dynamo.maybe_mark_dynamic(self.slots, 0)
        for call in self._calls:
            call.mark_for_compiler(several)

    def set_lengths(self, lengths: Sequence[int]) -> None:
        """Set the bound by each row's number of tokens, which the host knows, so that nobody waits for the device."""
        self.bound, self.uniform = max(lengths), min(lengths) == max(lengths)

    def clear(self, rows: Int[Tensor, " k"]) -> None:
        """Clear rows that have finished but are still in the batch. Call `set_lengths` afterwards."""
        self.lengths, self.written = (t.index_fill(0, rows, 0) for t in (self.lengths, self.written))
        self.uniform = False

    def count_slots(self, window: int | None) -> int:
        """Count the slots of a buffer whose readers have this window."""
        reach = self.narrow_window(window)
        if reach is None or not self.is_ring(window):
            return self.capacity
        return reach + self.slack

    def is_ring(self, window: int | None) -> bool:
        """Return True if a buffer whose readers have this window is a ring."""
        reach = self.narrow_window(window)
        # A compiled step must not depend on the capacity.
        return reach is not None and (self.static or reach + self.slack < self.capacity)

    def narrow_window(self, window: int | None) -> int | None:
        """Narrow a reader's window by the cache's own."""
        return min_window(window, self.window)

    def _round(self, tokens: int) -> int:
        """Round a number of tokens up to the next size of a static cache."""
        graphs = self.lengths.device.type != "cpu"
        return max(GROWTH, 1 << (tokens - 1).bit_length()) if graphs else -(-tokens // GROWTH) * GROWTH

    def _has_wrapped(self) -> bool:
        return bool((self.written > min(call.smallest for call in self._calls)).any())


def min_window(one: int | None, other: int | None) -> int | None:
    """Return the narrower of two windows; None is wider than any."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
