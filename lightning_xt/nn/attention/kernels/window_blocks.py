"""Sliding-window attention in blocks of queries, each with the blocks of keys that its window reaches.

Beltagy et al., 2020 (Longformer), https://arxiv.org/abs/2004.05150, multiply overlapping chunks likewise. Time and
memory grow with the length of a row, not with its square.

    causal       . . k k q . .        keys of one block of queries: its own block, and those before
    both ways    . . k k q k k        and those after it
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from lightning_xt.core.where import Where
from lightning_xt.nn.attention.kernels.scoring import Scoring

LEAST, MOST = 64, 128
"""Queries of a block: half a window within these bounds, or a quarter of a wide one."""
UNIT = 16
"""Queries of a block are a multiple of it, as kernels like masks."""
SKIPPED = 192
"""Keys that each query skips, from which on blocks are faster than a mask of all pairs."""

MaskedKernel = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Map from queries, keys, values and a mask of all pairs to gathered values."""


@dataclass(frozen=True)
class WindowBlocks:
    """Blocks of the queries of each row, and the keys that each of them reaches.

    Args:
        length: tokens of a row.
        size: queries of a block; the last one is padded.
        before: blocks of keys before that of the queries.
        after: blocks of keys after it.
        memory: persistent keys, which every block sees.
    """

    length: int
    size: int
    before: int
    after: int
    memory: int

    @property
    def count(self) -> int:
        """Number of blocks."""
        return -(-self.length // self.size)

    @property
    def reach(self) -> int:
        """Number of keys of a block, without persistent ones."""
        return (self.before + 1 + self.after) * self.size

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scoring: Scoring, run: MaskedKernel) -> Float[Tensor, "b h n e"]:
        """Run a kernel over blocks in place of rows, or of heads if rows share the bias of each head."""
        mask, (rows, heads) = self._make_mask(scoring, q), q.shape[:2]
        queries, keys, values = self._split(q), self._collect(k), self._collect(v)
        axis = 0 if len(mask) == rows else 1
        if axis == 1:
            mask = mask.expand(-1, -1, heads, -1, -1)
        out = run(*(t.flatten(axis, axis + 1) for t in (queries, keys, values, mask)))
        gathered = out.reshape(rows, self.count, heads, self.size, -1)
        return gathered.transpose(1, 2).flatten(2, 3)[:, :, : self.length]

    def _split(self, q: Float[Tensor, "b h n d"]) -> Float[Tensor, "b blocks h _ d"]:
        """Split queries into blocks."""
        padded = F.pad(q, (0, 0, 0, self.count * self.size - self.length))
        return padded.unflatten(2, (self.count, self.size)).transpose(1, 2)

    def _collect(self, k: Float[Tensor, "b g j d"]) -> Float[Tensor, "b blocks g _ d"]:
        """Collect the keys, or values, of each block."""
        first, more = self.before * self.size, (self.count + self.after) * self.size - self.length
        padded = F.pad(k[:, :, self.memory :], (0, 0, first, more))
        whole = padded.unflatten(2, (self.before + self.count + self.after, self.size))
        parts = [whole[:, :, at : at + self.count] for at in range(self.before + 1 + self.after)]
        if self.memory:
            parts.insert(0, k[:, :, None, : self.memory].expand(-1, -1, self.count, -1, -1))
        return torch.cat(parts, dim=3).transpose(1, 2)

    def _make_mask(self, scoring: Scoring, q: Float[Tensor, "b h n d"]) -> Float[Tensor, "_ blocks _ _ _"]:
        """Make the bias of each block, -inf for hidden keys: of each row, or one if they share that of each head."""
        where, device = scoring.where, q.device
        i, j, inside = self._build_indices(device)

        def show() -> Bool[Tensor, "_ blocks 1 _ _"]:
            return where.is_visible(_index_rows(where.rows, device), i, j) & inside

        def hide() -> Float[Tensor, "b blocks 1 _ _"]:
            seen = show()
            hidden = torch.zeros_like(seen, dtype=q.dtype).masked_fill(~seen, float("-inf"))
            return hidden.expand(len(q), -1, -1, -1, -1).contiguous()

        heads = torch.arange(q.shape[1], device=device).view(1, 1, -1, 1, 1)
        bias = scoring.bias(_index_rows(len(q) if scoring.rows_differ else 1, device), heads, i, j)
        if bias is None:
            # A number, for all layers keep the mask for the backward pass.
            return where.make_once(f"window blocks in {q.dtype}", hide)
        return bias.to(q.dtype).masked_fill(~where.make_once("window blocks", show), float("-inf"))

    def _build_indices(
        self, device: torch.device
    ) -> tuple[Int[Tensor, "1 blocks 1 _ 1"], Int[Tensor, "1 blocks 1 1 _"], Bool[Tensor, "1 blocks 1 1 _"]]:
        """Build indices of queries and keys, within the row, and True for keys that are.

        Padded queries repeat the last one, so that they see something.
        """
        last, starts = self.length - 1, torch.arange(self.count, device=device)[:, None] * self.size
        i = (starts + torch.arange(self.size, device=device)).clamp(max=last)
        at = starts + torch.arange(self.reach, device=device) - self.before * self.size
        j, inside = self.memory + at.clamp(0, last), (at >= 0) & (at <= last)
        if self.memory:
            j = torch.cat((torch.arange(self.memory, device=device).expand(self.count, -1), j), dim=1)
            inside = F.pad(inside, (self.memory, 0), value=True)
        return i[None, :, None, :, None], j[None, :, None, None], inside[None, :, None, None]


def find_window_blocks(where: Where) -> WindowBlocks | None:
    """Return the blocks of a window over whole rows. None = a mask of all pairs is faster, or blocks cannot serve.

    Blocks are by index, so positions must be in order, and an exported program serves rows of any length.
    """
    if where.window is None or where.order is not None or where.visible_prefix is not None:
        return None
    if (where.cached and not where.aligned) or torch.compiler.is_exporting():
        return None
    window, length = where.window, where.queries.shape[-1]
    size = UNIT * -(-max(LEAST, min(MOST, window // 2), window // 4) // UNIT)
    reached = -(-(window - 1) // size)
    blocks = WindowBlocks(length, size, reached, 0 if where.causal else reached, where.memory)
    return blocks if length >= blocks.reach + SKIPPED else None


def _index_rows(rows: int, device: torch.device) -> Int[Tensor, "b 1 1 1 1"]:
    return torch.arange(rows, device=device).view(-1, 1, 1, 1, 1)
