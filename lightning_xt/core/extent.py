"""Extent of a cache: the tokens of its rows, cached and announced."""

from collections.abc import Callable, Sequence
from copy import copy

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

GROWTH = 32
"""Tokens by which the shapes of a static cache grow; slots beyond a row's end are read too, but masked.

On CUDA the shapes double instead: a graph is recorded for each, which costs more than to read empty slots.
"""


class Extent:
    """Number of tokens of each row of a cache, and the sizes of its buffers.

    The cache and its calls share it, and it holds neither of them, so that a cache is freed with its last user.
    The arguments are those of `Cache`.
    """

    def __init__(
        self, batch: int, capacity: int, *, device: torch.device | None, slack: int, window: int | None, static: bool
    ) -> None:
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
        self.contexts = torch.zeros(batch, device=device)
        """One number for each row's context, which another context does not have."""
        self.index = self.slots
        """Index of each announced token. A tensor, of which a compiled step serves all sizes."""
        self._most = 0
        self._kept: Int[Tensor, " b"] | None = None
        self._functional = False

    def begin(self, n: int, lengths: Int[Tensor, " b"] | None) -> None:
        """Announce n new tokens a row, of which `lengths` are real."""
        self.index = torch.arange(n, device=self.lengths.device)
        self._kept, self._most = lengths, n
        if lengths is not None and not torch.compiler.is_compiling():
            # Padding takes no room: later tokens overwrite it.
            self._most = int(lengths.max())
        if self.static and not self.empty and self.bound + n > len(self.slots):
            self.slots = torch.arange(self._round(self.bound + n), device=self.lengths.device)

    def build_step(self, lengths: Int[Tensor, " b"], n: int) -> "Extent":
        """Build the extent of a functional step: n new tokens after `lengths` ones, of which the host knows nothing."""
        made = copy(self)
        made.lengths = made.written = lengths
        made.slots = torch.arange(self.capacity, device=lengths.device)
        made.index, made._most = torch.arange(n, device=lengths.device), n
        made._kept, made._functional = None, True
        made.empty = made.uniform = False
        return made

    def commit(self) -> None:
        """Count the announced tokens as cached."""
        # A window writes right padding too, unless more tokens came at once than its slack.
        reached = self.lengths + self.incoming if self.bound > 0 and self.incoming <= self.slack else self.count_kept()
        self.written = self.written.maximum(reached)
        self.lengths = self.count_kept()
        self.uniform = self.uniform and self._kept is None
        self.bound += self._most
        self.empty = self.bound == 0
        self.index, self._kept = self.index[:0], None

    def change_rows(self, change: Callable[[Tensor], Tensor]) -> None:
        """Change every number that each row has."""
        self.lengths, self.written, self.contexts = map(change, (self.lengths, self.written, self.contexts))

    @property
    def incoming(self) -> int:
        """Number of announced tokens of a row."""
        return self.index.shape[0]

    def get_positions(self) -> Int[Tensor, "#b i"]:
        """Return the positions of the announced tokens."""
        return self.index[None] + (self.bound if not self.stepping and self.uniform else self.lengths[:, None])

    @property
    def end(self) -> int:
        """One past the last position that the announced tokens see, or a larger number."""
        return self.slots.shape[0] if self.stepping else self.bound + self.incoming

    @property
    def real_end(self) -> int:
        """One past the last position of the announced tokens, without padding."""
        return self.bound + self._most

    @property
    def unmasked(self) -> bool:
        """True if each row sees all that a buffer without a window returns."""
        return not self.stepping and self.uniform and self.incoming == 1

    @property
    def stepping(self) -> bool:
        """True for a compiled or functional step, which must not depend on the lengths of rows."""
        return self._functional or (self.static and not self.empty)

    @property
    def real(self) -> Bool[Tensor, "b n"] | None:
        """True for announced tokens that are not padding. None = all."""
        if self._kept is None:
            return None
        return self.index < self._kept[:, None]

    def count_kept(self) -> Int[Tensor, " b"]:
        """Count each row's tokens, the announced ones included."""
        return self.lengths + (self.incoming if self._kept is None else self._kept)

    def count_slots(self, window: int | None) -> int:
        """Count the slots of a buffer whose readers have this window."""
        reach = min_window(window, self.window)
        if reach is None or not self.is_ring(window):
            return self.capacity
        return reach + self.slack

    def is_ring(self, window: int | None) -> bool:
        """Return True if a buffer whose readers have this window is a ring."""
        reach = min_window(window, self.window)
        # A compiled step must not depend on the capacity.
        return reach is not None and (self.static or reach + self.slack < self.capacity)

    def _round(self, tokens: int) -> int:
        """Round a number of tokens up to the next size of a static cache."""
        graphs = self.lengths.device.type != "cpu"
        return max(GROWTH, 1 << (tokens - 1).bit_length()) if graphs else -(-tokens // GROWTH) * GROWTH


def min_window(one: int | None, other: int | None) -> int | None:
    """Return the narrower of two windows; None is wider than any."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def check_reach(window: int | None, recurrent: Sequence[str]) -> None:
    """Refuse a window over parts with a running state, such as recurrences, by a ValueError."""
    if window is not None and recurrent:
        raise ValueError(
            f"window is {window}, but {' and '.join(recurrent)} is a recurrence, whose state remembers tokens of any "
            "distance, so no window can slide over it; omit the window"
        )


def check_lengths(lengths: Int[Tensor, "_"] | None, rows: int, n: int, least: int = 0) -> None:
    """Refuse lengths that are not a tensor of one whole number from `least` to n for each row by a ValueError."""
    if lengths is None or torch.compiler.is_compiling():
        return
    whole = isinstance(lengths, Tensor) and not (lengths.is_floating_point() or lengths.dtype == torch.bool)
    if not whole or lengths.shape != (rows,) or bool(((lengths < least) | (lengths > n)).any()):
        given = lengths.tolist() if isinstance(lengths, Tensor) else lengths
        why = " (last_only reads the last token of each)" if least else ""
        raise ValueError(
            f"lengths is {given}, but {rows} rows of {n} tokens were given; it must be a tensor of one whole number "
            f"from {least} to {n} for each row{why}"
        )


def project_context(context: Float[Tensor, "b m c"], mask: Bool[Tensor, "b m"] | None) -> Float[Tensor, " b"]:
    """Project each row's context to one number of its direction and its length, which does not depend on padding."""
    directions = torch.arange(1, context[0].numel() + 1, device=context.device).cos().view(context.shape[1:])
    real = context.float() if mask is None else context.float().masked_fill(~mask[..., None], 0.0)
    norm = real.norm(dim=(1, 2)).clamp(min=1e-9)
    return (real * directions).sum(dim=(1, 2)) / norm + norm.log()
