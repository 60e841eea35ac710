"""Decoding state: what the calls of a model's layers remember from one forward to the next.

A cache belongs to the caller, never to a module. There is one `CallCache` per call of a layer, so a layer that a
looped or tied model calls several times keeps one memory for each of its calls. The parts of a layer declare what
they remember by name when they first append it: rotated keys and values, latents, the tail of a token shift, the
sums of forget gates, the keys and values of a fixed context.

Rows may have different lengths. A token's slot is its position, so what right padding leaves behind in a row's slots
is at later positions than its next query, is seen by nobody, and is overwritten by the tokens that follow.

    full      slot = position                       capacity slots
    window    slot = position modulo the size       window + slack slots; slack is how far `truncate` may go back
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Cache:
    """The memory of one batch of sequences being decoded.

    Args:
        batch: rows.
        capacity: most tokens a row will ever hold, prompt and its right padding included.
        calls: calls of layers in one forward.
        device: where the row lengths live. None = the default device.
        slack: tokens that a window keeps beyond its width, so that as many can be taken back.
    """

    def __init__(
        self, batch: int, capacity: int, *, calls: int, device: torch.device | None = None, slack: int = 64
    ) -> None:
        if batch < 1 or capacity < 1:
            raise ValueError(f"a cache needs at least one row and one token, not batch {batch}, capacity {capacity}")
        self.capacity = capacity
        self.slack = slack
        self.lengths = torch.zeros(batch, dtype=torch.long, device=device)
        self.bound = 0
        """No row holds more tokens than this. A number of the host, so that reading it never waits for the device."""
        self.uniform = True
        """Every row holds exactly `bound` tokens."""
        self.written = torch.zeros_like(self.lengths)
        """One past the highest position that each row's slots have ever held; taking tokens back does not lower it."""
        self.incoming = 0
        self._kept: Int[Tensor, " b"] | None = None
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

    def commit(self) -> None:
        """Makes the announced tokens part of the past."""
        # A window writes right padding too, unless more came at once than its slack.
        reached = self.lengths + self.incoming if self.bound > 0 and self.incoming <= self.slack else self.kept()
        self.written = self.written.maximum(reached)
        self.lengths = self.kept()
        self.uniform = self.uniform and self._kept is None
        self.bound += self.incoming
        self.incoming, self._kept = 0, None

    def positions(self) -> Int[Tensor, "#b i"]:
        """Where the announced tokens stand."""
        steps = torch.arange(self.incoming, device=self.lengths.device)[None]
        return steps + (self.bound if self.uniform else self.lengths[:, None])

    def kept(self) -> Int[Tensor, " b"]:
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
        back = int(((self.written - lengths) * (lengths > 0)).max()) if self._wrapped() else 0
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
        if self.bound == 0:
            # The next forward begins anew, and its context may be another.
            for call in self._calls:
                call.fixed.clear()

    def select(self, rows: Int[Tensor, " b"]) -> None:
        """Keeps, repeats or reorders rows, as beam search and the retiring of finished rows need."""
        self.lengths, self.written = self.lengths[rows], self.written[rows]
        for call in self._calls:
            call.select(rows)

    def size(self, window: int | None) -> int:
        """Slots of a buffer whose readers look back so far."""
        return self.capacity if window is None else min(self.capacity, window + self.slack)

    def _wrapped(self) -> bool:
        return bool((self.written > min(call.smallest for call in self._calls)).any())


class CallCache:
    """What one call of a layer remembers. Time is the last axis but one of everything appended.

    Args:
        owner: the cache it is part of, which knows the lengths of the rows.
    """

    def __init__(self, owner: Cache) -> None:
        self.owner = owner
        self._buffers: dict[str, Tensor] = {}
        self.fixed: dict[str, tuple[Tensor, ...]] = {}
        """What never changes while decoding, one row each: a context's keys, values and mask."""
        self.running: dict[str, Tensor] = {}
        """What each forward replaces, one row each: the state of a recurrence, the memory of a segment."""

    @property
    def smallest(self) -> int:
        """Slots of the smallest buffer."""
        return min((buffer.shape[-2] for buffer in self._buffers.values()), default=self.owner.capacity)

    def append(
        self, name: str, new: Float[Tensor, "b *heads n d"], *, window: int | None = None
    ) -> Float[Tensor, "b *heads j d"]:
        """Remembers the announced tokens and returns all that their readers may look at, in the order of `keys_at`.

        Args:
            name: what is remembered.
            new: one vector per announced token.
            window: how far back readers look, themselves included. None = to the start.
        """
        owner, n, size = self.owner, new.shape[-2], self.owner.size(window)
        if name not in self._buffers:
            # Zeros, not whatever was there: an empty slot gets weight 0, and 0 times NaN would still be NaN.
            self._buffers[name] = new.new_zeros(*new.shape[:-2], size, new.shape[-1])
        buffer = self._buffers[name]
        if size < owner.capacity and (n > owner.slack or owner.bound == 0):
            seen = new if owner.bound == 0 else torch.cat((buffer, new), dim=-2)
            self._keep_tail(name, new)
            return seen
        if owner.uniform and (start := owner.bound % size) + n <= size:
            buffer[..., start : start + n, :] = new
        else:
            slots = (owner.positions() % size).expand(new.shape[0], -1)
            buffer.scatter_(-2, _spread(slots, new), new)
        if owner.bound == 0:
            return new
        return buffer if size < owner.capacity else buffer[..., : owner.bound + n, :]

    def keys_at(self, window: int | None = None) -> Int[Tensor, "#b j"]:
        """Positions of what `append` returned for the announced tokens; negative where a slot is empty."""
        owner, n, size = self.owner, self.owner.incoming, self.owner.size(window)
        if owner.bound == 0:
            return owner.positions()
        if size == owner.capacity:
            return torch.arange(owner.bound + n, device=owner.lengths.device)[None]
        before = owner.lengths[:1] if owner.uniform else owner.lengths
        if n > owner.slack:
            return torch.cat((_ring(before, size), before[:, None] + torch.arange(n, device=before.device)), dim=1)
        return _ring(before + n, size)

    def last(self, name: str, like: Float[Tensor, "b *heads n d"]) -> Float[Tensor, "b *heads 1 d"]:
        """What was appended for the token right before the announced ones; zeros at the start of a row.

        Args:
            name: what is remembered; to be asked before the announced tokens are appended.
            like: a tensor of the same kind, for shape and type.
        """
        if self.owner.bound == 0 or name not in self._buffers:
            return torch.zeros_like(like[..., :1, :])
        buffer, lengths = self._buffers[name], self.owner.lengths[:, None]
        slots = _spread((lengths - 1) % buffer.shape[-2], like[..., :1, :])
        return torch.where(_spread(lengths, like[..., :1, :]) > 0, buffer.gather(-2, slots), 0)

    def select(self, rows: Int[Tensor, " b"]) -> None:
        """Keeps, repeats or reorders rows."""
        self._buffers = {name: buffer[rows] for name, buffer in self._buffers.items()}
        self.fixed = {name: tuple(t[rows] for t in tensors) for name, tensors in self.fixed.items()}
        self.running = {name: tensor[rows] for name, tensor in self.running.items()}

    def _keep_tail(self, name: str, new: Tensor) -> None:
        """Writes only what still fits of more new tokens than the window has slots for."""
        owner, buffer = self.owner, self._buffers[name]
        at = _ring(owner.kept(), buffer.shape[-2]) - owner.lengths[:, None]
        shape = buffer[..., :1].expand_as(buffer)
        index = _spread(at.clamp(0, new.shape[-2] - 1), shape)
        buffer.copy_(torch.where(_spread(at, shape) >= 0, new.gather(-2, index), buffer))


def _ring(lengths: Int[Tensor, " b"], size: int) -> Int[Tensor, "b j"]:
    """Position held by each slot of a ring once a row has so many tokens: the last one that falls on the slot."""
    slots = torch.arange(size, device=lengths.device)
    last = lengths[:, None] - 1
    return last - (last - slots) % size


def _spread(index: Int[Tensor, "b n"], like: Tensor) -> Tensor:
    """Spreads a number per row and time over the axes of a (b ... n d) tensor."""
    middle = (1,) * (like.dim() - 3)
    return index.view(index.shape[0], *middle, index.shape[1], 1).expand_as(like)
