from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import Cache

from lightning_xt.exchange.remote_code.padding import RightPadded

ROOM = 64
"""Tokens for which a cache has room besides the first ones; it doubles when it is full."""


class RemoteCache(Cache):
    """Cache of a decoder here, as `generate` of `transformers` handles it: by rows and columns, padding included.

    Args:
        capacity: columns to have room for, if they are known; it grows by itself.
    """

    def __init__(self, capacity: int = 0) -> None:
        super().__init__(layers=[])
        self.own: Any = None
        """The cache of the decoder, from the first forward on."""
        self.columns, self._capacity, self._croppable = 0, capacity, True
        self.lengths: list[int] = []
        """Tokens of each row without padding."""

    def reserve(self, decoder: Any, rows: int, more: int) -> Any:
        """Return the cache of the decoder with room for more tokens in each row."""
        if self.own is None:
            self.own = decoder.new_cache(rows, max(self._capacity, more + ROOM))
            self.lengths, self._croppable = [0] * rows, not decoder.recurrences
        needed = max(self.lengths) + more
        if needed > self.own.capacity:
            larger = decoder.new_cache(len(self.lengths), 2 * needed)
            kept = torch.arange(len(self.lengths), device=decoder.token_embedding.weight.device)
            larger.overwrite(kept, self.own)
            larger.set_lengths(self.lengths)
            self.own = larger
        return self.own

    def count(self, given: RightPadded) -> None:
        """Count tokens that were appended."""
        rows, n = given.tokens.shape
        self.columns += n
        added = [n] * rows if given.lengths is None else given.lengths.tolist()
        self.lengths = [before + new for before, new in zip(self.lengths, added, strict=True)]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the number of columns."""
        return self.columns

    def reorder_cache(self, beam_idx: Int[Tensor, " b"]) -> None:
        """Keep, repeat or reorder rows."""
        self.own.select(beam_idx)
        self.lengths = [self.lengths[row] for row in beam_idx.tolist()]

    def batch_select_indices(self, indices: Int[Tensor, " b"]) -> None:
        """Keep, repeat or reorder rows."""
        self.reorder_cache(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row in place."""
        rows = torch.arange(len(self.lengths)).repeat_interleave(repeats)
        self.reorder_cache(rows)

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the last tokens of each row, given as a negative number; a positive one is the columns to keep."""
        removed = -tokens_to_remove if tokens_to_remove <= 0 else max(0, self.columns - tokens_to_remove)
        if removed:
            self.lengths = [max(0, length - removed) for length in self.lengths]
            self.own.truncate(torch.tensor(self.lengths, device=self.own.lengths.device))
            self.columns -= removed

    @property
    def batch_size(self) -> int:
        return len(self.lengths)

    @property
    def is_initialized(self) -> bool:
        return True

    @property
    def is_compileable(self) -> bool:
        return False

    @property
    def is_croppable(self) -> bool:
        return self._croppable

    @property
    def is_linear(self) -> list[bool]:
        # A caller continues from `get_seq_length`, whatever the layers are.
        return [False]
