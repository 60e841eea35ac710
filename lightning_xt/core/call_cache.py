"""Cache of one call of a layer; see `core.cache`."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from lightning_xt.core.extent import Extent
from lightning_xt.core.fixed_context import FixedContext, move_rows, widen_rows


class CallCache:
    """Cache of one call of a layer. Time is the last axis but one of everything appended.

    The extent is that of the whole cache.
    """

    def __init__(self, extent: Extent) -> None:
        self.extent = extent
        self._buffers: dict[str, Tensor] = {}
        self._windows: dict[str, int | None] = {}
        self.fixed: dict[str, FixedContext] = {}
        """State that never changes while decoding: contexts, one for each row or for each group of rows."""
        self.running: dict[str, Tensor] = {}
        """State that each forward replaces, one row each: of a recurrence, or of a segment memory."""
        self._branches: dict[str, CallCache] = {}

    def branch(self, name: str) -> "CallCache":
        """Return the cache of one of several parts of this call that may use the same names."""
        if name not in self._branches:
            self._branches[name] = CallCache(self.extent)
        return self._branches[name]

    def walk(self) -> "Iterator[CallCache]":
        """Yield this cache and those of its branches."""
        yield self
        for each in self._branches.values():
            yield from each.walk()

    def collect(self) -> dict[str, Tensor]:
        """Return the tensors that forwards change, by name; those of branches too."""
        return self._buffers | self.running | self._gather(CallCache.collect)

    def collect_contexts(self) -> dict[str, FixedContext]:
        """Return the contexts by name; those of branches too."""
        return self.fixed | self._gather(CallCache.collect_contexts)

    def replace(
        self, tensors: Mapping[str, Tensor], contexts: Mapping[str, FixedContext], extent: Extent
    ) -> "CallCache":
        """Return a cache with the names of this one, but other tensors, contexts and extent."""
        made = CallCache(extent)
        made._windows = dict(self._windows)
        made._buffers = {name: tensors[name] for name in self._buffers}
        made.running = {name: tensors[name] for name in self.running}
        made.fixed = {name: contexts[name] for name in self.fixed}
        for branch, cache in self._branches.items():
            own = {name: tensors[_join(branch, name)] for name in cache.collect()}
            known = {name: contexts[_join(branch, name)] for name in cache.collect_contexts()}
            made._branches[branch] = cache.replace(own, known, extent)
        return made

    def _gather(self, collect: Callable[["CallCache"], dict[str, Any]]) -> dict[str, Any]:
        return {
            _join(branch, name): each
            for branch, cache in self._branches.items()
            for name, each in collect(cache).items()
        }

    def set_running(self, name: str, state: Float[Tensor, "b ..."]) -> None:
        """Replace a running state, in place if there is one: a recorded graph reads and writes the same tensor."""
        if name in self.running:
            self.running[name].copy_(state.detach())
        else:
            self.running[name] = state.detach().clone(memory_format=torch.contiguous_format)

    @property
    def smallest(self) -> int:
        """Number of slots of the smallest buffer."""
        return min((buffer.shape[-2] for buffer in self._buffers.values()), default=self.extent.capacity)

    def append(
        self, name: str, new: Num[Tensor, "b *heads n d"], *, window: int | None = None
    ) -> Num[Tensor, "b *heads j d"]:
        """Cache vectors of the announced tokens and return all that these tokens may see.

        Args:
            name: name of the buffer.
            new: one vector for each announced token.
            window: tokens that readers look back, themselves included. None = to the start.

        Returns:
            Vectors in the order of `get_key_positions`.
        """
        extent, n, ring = self.extent, new.shape[-2], self.extent.is_ring(window)
        if name not in self._buffers:
            # Zeros, not whatever was there: an empty slot gets weight 0, and 0 times NaN would still be NaN.
            self._buffers[name] = new.new_zeros(*new.shape[:-2], extent.count_slots(window), new.shape[-1])
            self._windows[name] = window
        buffer = self._buffers[name]
        if ring and (n > extent.slack or extent.empty):
            seen = new if extent.empty else torch.cat((buffer, new), dim=-2)
            self._keep_tail(buffer, new)
            return seen
        start = extent.bound % buffer.shape[-2] if not extent.stepping and extent.uniform else -1
        if 0 <= start <= buffer.shape[-2] - n:
            buffer[..., start : start + n, :] = new
        else:
            slots = extent.get_positions() % buffer.shape[-2] if ring else extent.get_positions()
            rows = torch.arange(new.shape[0], device=new.device)[:, None]
            # Not scatter_: a compiled step would copy the whole buffer for it, twice.
            buffer.movedim(-2, 1)[rows, slots] = new.movedim(-2, 1)
        if extent.empty:
            return new
        return buffer if ring else buffer[..., : extent.end, :]

    def get_key_positions(self, window: int | None = None) -> Int[Tensor, "#b j"]:
        """Return the positions of the vectors that `append` returns; negative for an empty slot."""
        extent, n = self.extent, self.extent.incoming
        if extent.empty:
            return extent.get_positions()
        if not extent.is_ring(window):
            return (
                extent.slots[None] if extent.stepping else torch.arange(extent.end, device=extent.lengths.device)[None]
            )
        size = extent.count_slots(window)
        before = extent.lengths[:1] if not extent.stepping and extent.uniform else extent.lengths
        if n > extent.slack:
            return torch.cat(
                (_locate_ring(before, size), before[:, None] + torch.arange(n, device=before.device)), dim=1
            )
        return _locate_ring(before + n, size)

    def get_last(self, name: str, like: Num[Tensor, "b *heads n d"]) -> Num[Tensor, "b *heads 1 d"]:
        """Return the vector of the token right before the announced ones; zeros at the start of a row.

        The announced tokens are not yet appended to the named buffer. `like` has the shape and type of such vectors.
        """
        if self.extent.empty or name not in self._buffers:
            return torch.zeros_like(like[..., :1, :])
        buffer, lengths = self._buffers[name], self.extent.lengths[:, None]
        slots = _spread((lengths - 1) % buffer.shape[-2], like[..., :1, :])
        return torch.where(_spread(lengths, like[..., :1, :]) > 0, buffer.gather(-2, slots), 0)

    def reorder(self, rows: Int[Tensor, " b"]) -> None:
        """Keep, repeat or reorder rows, whose contexts stay in place."""
        self._buffers = {name: buffer[rows] for name, buffer in self._buffers.items()}
        self.running = {name: tensor[rows] for name, tensor in self.running.items()}

    def select_contexts(self, rows: Int[Tensor, " b"], batch: int) -> None:
        """Keep, repeat or reorder the contexts of rows, of which there were `batch`."""
        self.fixed = {name: context.select(rows, batch) for name, context in self.fixed.items()}

    def retire(self, source: Int[Tensor, " k"] | None, target: Int[Tensor, " k"] | None, rows: int) -> None:
        """Move the rows `source`, if any, over the rows `target`, then keep only the first `rows`."""
        self._buffers = {name: move_rows(buffer, source, target, rows) for name, buffer in self._buffers.items()}
        self.running = {name: move_rows(tensor, source, target, rows) for name, tensor in self.running.items()}
        self.fixed = {name: context.retire(source, target, rows) for name, context in self.fixed.items()}

    def widen(self, rows: int, reserve: int) -> None:
        """Add rows to be overwritten, up to a number of rows, in memory that has room for `reserve` rows."""
        self._buffers = {name: widen_rows(buffer, rows, reserve) for name, buffer in self._buffers.items()}
        self.running = {name: widen_rows(tensor, rows, reserve) for name, tensor in self.running.items()}
        self.fixed = {name: context.widen(rows) for name, context in self.fixed.items()}

    def overwrite(self, rows: Int[Tensor, " k"], other: "CallCache") -> None:
        """Overwrite rows by those of another cache."""
        batch = len(self.extent.lengths)
        for name, theirs in other._buffers.items():
            if name not in self._buffers:
                window = self._windows[name] = other._windows[name]
                size = self.extent.count_slots(window)
                self._buffers[name] = theirs.new_zeros(batch, *theirs.shape[1:-2], size, theirs.shape[-1])
            self._buffers[name][rows, ..., : theirs.shape[-2], :] = theirs
        for name, state in other.running.items():
            if name not in self.running:
                self.running[name] = state.new_zeros(batch, *state.shape[1:])
            self.running[name][rows] = state
        for name, context in other.fixed.items():
            mine = self.fixed.get(name)
            if len(rows) == batch:
                # No wider than the new contexts, whatever was there.
                self.fixed[name] = context.select(rows.argsort(), batch)
            else:
                self.fixed[name] = context.spread(batch, rows) if mine is None else mine.overwrite(rows, context)
        for name, branch in other._branches.items():
            self.branch(name).overwrite(rows, branch)

    def clear(self, rows: Int[Tensor, " k"]) -> None:
        """Let rows begin again: with running states of 0."""
        for state in self.running.values():
            state.index_fill_(0, rows, 0)

    def mark_for_compiler(self, several: bool) -> None:
        """Mark the slots, and the rows if there are several, as sizes that change, and the tensors as staying in place.

        CUDA graphs copy the inputs of each step, and inductor skips a graph that writes into an input ("mutated
        inputs"): unless the address of the input is known to stay.
        """
        marked = [(buffer, -2) for buffer in self._buffers.values()]
        for context in self.fixed.values():
            marked += [(context.keys, -2), (context.values, -2)]
            marked += [] if context.mask is None else [(context.mask, -1)]
        for tensor, axis in marked:
            slots = axis % tensor.dim()
            torch._dynamo.maybe_mark_dynamic(tensor, [0, slots] if several else [slots])
            # Without a guard: another cache records its own graphs, and compiles nothing.
            torch._dynamo.mark_static_address(tensor, guard=False)
        for state in self.running.values():
            if several:
                torch._dynamo.maybe_mark_dynamic(state, 0)
            torch._dynamo.mark_static_address(state, guard=False)

    def _keep_tail(self, buffer: Tensor, new: Tensor) -> None:
        """Write the last of the new tokens, as many as the window has slots."""
        extent = self.extent
        at = _locate_ring(extent.count_kept(), buffer.shape[-2]) - extent.lengths[:, None]
        shape = buffer[..., :1].expand_as(buffer)
        index = _spread(at.clamp(0, new.shape[-2] - 1), shape)
        buffer.copy_(torch.where(_spread(at, shape) >= 0, new.gather(-2, index), buffer))


def _locate_ring(lengths: Int[Tensor, " b"], size: int) -> Int[Tensor, "b j"]:
    """Locate the position in each slot of a ring of `size` slots: the row's last one that falls on the slot."""
    slots = torch.arange(size, device=lengths.device)
    last = lengths[:, None] - 1
    return last - (last - slots) % size


def _join(branch: str, name: str) -> str:
    """Return the name of a tensor of a branch."""
    return f"{branch}_{name}"


def _spread(index: Int[Tensor, "b n"], like: Tensor) -> Tensor:
    """Spread one number per row and time over the axes of a (b ... n d) tensor."""
    middle = (1,) * (like.dim() - 3)
    return index.view(index.shape[0], *middle, index.shape[1], 1).expand_as(like)
