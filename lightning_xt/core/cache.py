"""Decoding state: what the calls of a model's layers remember from one forward to the next.

A cache belongs to the caller, never to a module. There is one `CallCache` per call of a layer, so a layer that a
looped or tied model calls several times keeps one memory for each of its calls. The parts of a layer declare what
they remember by name when they first append it: rotated keys and values, latents, the tail of a token shift, the
sums of forget gates, the keys and values of a fixed context.

Rows may have different lengths. A token's slot is its position, so what right padding leaves behind in a row's slots
is at later positions than its next query, is seen by nobody, and is overwritten by the tokens that follow.

    full      slot = position                       capacity slots
    window    slot = position modulo the size       window + slack slots; slack is how far `truncate` may go back

A forward stands between `begin` and `commit`. What it reads in between are tensors and numbers that seldom change, so
that a step of decoding over a `static` cache is compiled once and serves every length.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.fixed_context import move_rows

GROWTH = 32
"""Tokens by which the shapes grow that steps of a static cache see; slots beyond a row's end are read in vain.

On CUDA they double instead: a graph is recorded for each shape, and a skipped graph costs more than empty slots.
"""


class Cache:
    """The memory of one batch of sequences being decoded.

    Args:
        batch: rows.
        capacity: most tokens a row will ever hold, prompt and its right padding included.
        calls: calls of layers in one forward.
        device: where the row lengths live. None = the default device.
        slack: tokens that a window keeps beyond its width, so that as many can be taken back.
        window: tokens that every reader may look back, itself included. None = as far as each does by itself.
        static: whether steps see shapes that change once in so many tokens rather than with each.
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
        # One step more, so that what steps look at is always less than all.
        self.capacity = self._round(capacity) + GROWTH if static else capacity
        self.bound = 0
        """No row holds more tokens than this. A number of the host, so that reading it never waits for the device."""
        self.uniform = True
        """Every row holds exactly `bound` tokens."""
        self.empty = True
        """No row holds any token."""
        self.slots = torch.arange(0, device=device)
        """Positions of the slots that steps of a static cache look at: all that are taken, and some more."""
        self.written = torch.zeros_like(self.lengths)
        """One past the highest position that each row's slots have ever held; taking tokens back does not lower it."""
        self.incoming = 0
        self._kept: Int[Tensor, " b"] | None = None
        self._marked: Tensor | None = None
        self._calls = [CallCache(self) for _ in range(calls)]

    def __getitem__(self, call: int) -> "CallCache":
        return self._calls[call]

    def __len__(self) -> int:
        return len(self._calls)

    def begin(self, n: int, lengths: Int[Tensor, " b"] | None = None) -> None:
        """Announces a forward over n new tokens a row.

        Args:
            n: new tokens, right padding included.
            lengths: how many of them are real in each row. None = all.

        Raises:
            ValueError: they do not fit.
        """
        if self.bound + n > self.capacity:
            raise ValueError(
                f"the cache holds {self.capacity} tokens a row, {self.bound} are taken and {n} more were given; "
                f"ask for new_cache(..., capacity={self.bound + n}) or more"
            )
        self.incoming, self._kept = n, lengths
        if self.static and not self.empty and self.bound + n > len(self.slots):
            self.slots = torch.arange(self._round(self.bound + n), device=self.lengths.device)

    def commit(self) -> None:
        """Makes the announced tokens part of the past."""
        # A window writes right padding too, unless more came at once than its slack.
        reached = self.lengths + self.incoming if self.bound > 0 and self.incoming <= self.slack else self.count_kept()
        self.written = self.written.maximum(reached)
        self.lengths = self.count_kept()
        self.uniform = self.uniform and self._kept is None
        self.bound += self.incoming
        self.empty = self.bound == 0
        self.incoming, self._kept = 0, None

    def get_positions(self) -> Int[Tensor, "#b i"]:
        """Where the announced tokens stand."""
        steps = torch.arange(self.incoming, device=self.lengths.device)[None]
        return steps + (self.bound if not self.stepping and self.uniform else self.lengths[:, None])

    @property
    def end(self) -> int:
        """One past the last position that the announced tokens see, or more."""
        return len(self.slots) if self.stepping else self.bound + self.incoming

    @property
    def unmasked(self) -> bool:
        """Whether each row sees all that a buffer without a window returns."""
        return not self.stepping and self.uniform and self.incoming == 1

    @property
    def stepping(self) -> bool:
        """Whether the announced tokens are of a forward that must not know how long rows are."""
        return self.static and not self.empty

    def count_kept(self) -> Int[Tensor, " b"]:
        """Length of each row once the announced tokens are part of the past."""
        return self.lengths + (self.incoming if self._kept is None else self._kept)

    def truncate(self, length: int | Int[Tensor, " b"]) -> None:
        """Forgets every token from a position on, as speculative decoding needs.

        Args:
            length: tokens to keep, for all rows or for each; a row that holds fewer keeps what it has.

        Raises:
            ValueError: a window has already overwritten what would be needed again.
        """
        if isinstance(length, int) and length < 0:
            raise ValueError(f"a cache cannot keep {length} tokens; give 0 or more")
        running = sorted({name for call in self._calls for name in call.running})
        if running:
            raise ValueError(
                f"cannot take tokens back: {', '.join(running)} is a running state that does not remember its past; "
                "decode again from the start"
            )
        lengths = self.lengths.clamp(max=length) if isinstance(length, int) else self.lengths.minimum(length)
        # An emptied row needs nothing that was overwritten.
        back = int(((self.written - lengths) * (lengths > 0)).max()) if self._has_wrapped() else 0
        if back > self.slack:
            raise ValueError(
                f"cannot take back {back} tokens: a window keeps {self.slack} beyond its width; "
                f"ask for new_cache(..., slack={back})"
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
            # The next forward begins anew, and its context may be another.
            for call in self._calls:
                call.fixed.clear()

    def select(self, rows: Int[Tensor, " b"]) -> None:
        """Keeps, repeats or reorders rows, as beam search needs."""
        self._marked = None
        for call in self._calls:
            call.select(rows, len(self.lengths))
        self.lengths, self.written = self.lengths[rows], self.written[rows]

    def repeat(self, times: int) -> None:
        """Repeats each row in place, as often; a fixed context is not copied but shared by the repeated rows.

        Args:
            times: rows that come of each.
        """
        rows = torch.arange(len(self.lengths), device=self.lengths.device).repeat_interleave(times)
        self.reorder(rows)

    def reorder(self, rows: Int[Tensor, " b"]) -> None:
        """The same as `select` among rows that share a context, which stays where it is.

        Args:
            rows: which rows to keep, repeat or put elsewhere; each group of rows with one context stays whole.
        """
        self._marked = None
        for call in self._calls:
            call.select(rows, len(self.lengths), contexts=False)
        self.lengths, self.written = self.lengths[rows], self.written[rows]

    def retire(self, moves: Sequence[tuple[int, int]], rows: int) -> None:
        """Lets the last rows go, with little to copy: those that stay are moved into the places of those that do not.

        call `set_lengths` afterwards.

        Args:
            moves: which row goes where: (from, to).
            rows: how many stay.
        """
        source = target = None
        if moves:
            source, target = torch.tensor(moves, device=self.lengths.device).T
        self.lengths, self.written = (move_rows(t, source, target, rows) for t in (self.lengths, self.written))
        self._marked = None
        for call in self._calls:
            call.retire(source, target, rows)

    def place(self, rows: Int[Tensor, " k"], other: "Cache") -> None:
        """Puts rows of another cache of the same model in the place of rows of this one.

        Args:
            rows: whose places they take.
            other: of at most the same capacity, with the same slack and window.

        Raises:
            ValueError: a row would not fit.
        """
        if other.bound > self.capacity:
            raise ValueError(f"a row of up to {other.bound} tokens does not fit into a cache of {self.capacity}")
        self.lengths = self.lengths.index_copy(0, rows, other.lengths)
        self.written = self.written.index_copy(0, rows, other.written)
        self.bound, self.uniform = max(self.bound, other.bound), False
        self.empty = self.bound == 0
        self._marked = None
        for ours, theirs in zip(self._calls, other._calls, strict=True):
            ours.place(rows, theirs)

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
        """Tells how many tokens each row holds, so that nobody has to wait for the device to say so.

        Args:
            lengths: of each row.
        """
        self.bound, self.uniform = max(lengths), min(lengths) == max(lengths)

    def clear(self, rows: Int[Tensor, " k"]) -> None:
        """Clear rows that have finished but are still in the batch. Call `set_lengths` afterwards."""
        self.lengths, self.written = (t.index_fill(0, rows, 0) for t in (self.lengths, self.written))
        self.uniform = False

    def count_slots(self, window: int | None) -> int:
        """Slots of a buffer whose readers look back so far."""
        reach = self.narrow_window(window)
        if reach is None or not self.is_ring(window):
            return self.capacity
        return reach + self.slack

    def is_ring(self, window: int | None) -> bool:
        """Whether a buffer whose readers look back so far is a ring."""
        reach = self.narrow_window(window)
        # What is compiled must not depend on the capacity.
        return reach is not None and (self.static or reach + self.slack < self.capacity)

    def narrow_window(self, window: int | None) -> int | None:
        """How far readers with this window look back here."""
        return min_window(window, self.window)

    def _round(self, tokens: int) -> int:
        """Round up to the next size of what steps of a static cache see."""
        graphs = self.lengths.device.type != "cpu"
        return max(GROWTH, 1 << (tokens - 1).bit_length()) if graphs else -(-tokens // GROWTH) * GROWTH

    def _has_wrapped(self) -> bool:
        return bool((self.written > min(call.smallest for call in self._calls)).any())


def min_window(one: int | None, other: int | None) -> int | None:
    """The min_window of two windows; None is wider than any."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
