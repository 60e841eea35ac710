"""Positions of queries and keys, and the mask between them."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask
from torch.nn.functional import pad

from lightning_xt.core.block_masks import BLOCK, make_block_mask
from lightning_xt.core.cache import Cache
from lightning_xt.core.extent import min_window
from lightning_xt.core.inputs import WHOLE_SEQUENCES, Inputs
from lightning_xt.core.packed_documents import find_document_starts, number_documents

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Where:
    """Positions per row and a symbolic mask, built once per forward.

    True means visible, everywhere. A key at a negative position is an empty slot that no query sees. Tensors that all
    rows share have one row. Rows of different lengths are padded on the right, so that a token stands at its own index
    and causal attention never reaches the padding.

    Args:
        queries: position of each query.
        keys: position of each key.
        causal: True if a query sees no key at a later position.
        window: a query sees only keys fewer than this many positions away. None = any distance.
        reach: upper limit of every window. None = no limit.
        valid: True for real keys. None = all.
        query_documents: document of each query. None = one document a row.
        key_documents: document of each key.
        visible_prefix: every query of the row sees the keys at positions before it (prefix language models).
        memory: number of persistent keys before all others, which every query sees.
        valid_memory: True for persistent keys that are seen. None = all.
        own_mask: True for pairs that the caller lets see. None = all.
        order: indices by which tokens are earlier or later, if positions are not in order. None = the positions.
        end: one past the last position of any row, or a larger number, known without waiting for the device.
        cached: True if the positions continue those of a cache, whose owner knows how far they reach.
        aligned: True if queries and keys are the same tokens, at positions 0, 1, 2, ... in every row.
        unmasked: True if every query sees every key, whatever the fields above say.
        masks: masks built in this forward. Layers with the same keys share them, so that each mask is built once.
    """

    queries: Int[Tensor, "#b i"]
    keys: Int[Tensor, "#b j"]
    causal: bool = True
    window: int | None = None
    reach: int | None = None
    valid: Bool[Tensor, "#b j"] | None = None
    query_documents: Int[Tensor, "b i"] | None = None
    key_documents: Int[Tensor, "b j"] | None = None
    visible_prefix: Int[Tensor, " b"] | None = None
    memory: int = 0
    valid_memory: Bool[Tensor, "b _"] | None = None
    own_mask: Bool[Tensor, "b i j"] | None = None
    order: Int[Tensor, "1 _"] | None = None
    end: int = 0
    cached: bool = False
    aligned: bool = False
    unmasked: bool = False
    masks: dict[Any, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_sequence(
        cls, n: int, *, causal: bool, inputs: Inputs, lengths: Int[Tensor, " b"] | None, device: torch.device
    ) -> "Where":
        """Build the positions and mask of a forward without a cache.

        Args:
            n: number of tokens in a row, padding and soft prefix included.
            causal: True if a token sees only itself and earlier tokens.
            inputs: source of documents, hidden tokens and the length of a visible prefix.
            lengths: number of real tokens of each row. None = all.
            device: device of the tokens.
        """
        index = torch.arange(n, device=device)[None]
        valid = None if inputs.hidden_tokens is None else ~inputs.hidden_tokens
        if lengths is not None and not (causal and inputs.visible_prefix is None):
            real = index < lengths[:, None]
            valid = real if valid is None else valid & real
        documents = None if inputs.documents is None else number_documents(inputs.documents)
        at = index if documents is None else index - find_document_starts(documents)
        at = at if inputs.positions is None else inputs.positions
        return cls(
            queries=at,
            keys=at,
            causal=causal,
            valid=valid,
            query_documents=documents,
            key_documents=documents,
            visible_prefix=inputs.visible_prefix,
            own_mask=inputs.mask,
            order=None if inputs.positions is None else index,
            end=n,
            aligned=documents is None and inputs.positions is None,
        )

    def switch_to_context(self, m: int, valid: Bool[Tensor, "b m"] | None) -> "Where":
        """Replace the keys by the m vectors of a context, all visible from everywhere, or only the `valid` ones.

        A forward has one context, so that the cross-attention of all layers shares its masks.
        """
        keys, masks = torch.arange(m, device=self.queries.device)[None], self.masks.setdefault("across", {})
        return Where(queries=self.queries, keys=keys, causal=False, valid=valid, end=self.end, masks=masks)

    def group_rows(self, rows: int) -> "Where":
        """Turn the queries of each `rows` rows, which have the same keys, into the queries of one row."""
        queries = self.queries.expand(rows, -1) if self.queries.shape[0] == 1 else self.queries
        return replace(self, queries=queries.reshape(-1, rows * queries.shape[1]))

    def switch_to_cache(self, keys: Int[Tensor, "#b j"], window: int | None) -> "Where":
        """Replace the keys by those of a cache, which are the same for all layers with this window."""
        unmasked = self.unmasked and window is None and self.reach is None
        masks = self.masks.setdefault(("over", window), {})
        return replace(self.limit_window(window), keys=keys, unmasked=unmasked, masks=masks)

    def limit_window(self, window: int | None) -> "Where":
        """Set the window, or None if the window holds the whole sequence."""
        window = min_window(window, self.reach)
        exported = torch.compiler.is_exporting()  # Such a program serves rows on both sides of the width.
        reached = window is not None and self.order is None and not exported and self.end <= window
        return replace(self, window=None if reached else window)

    def add_memory(self, memory: int, valid: Bool[Tensor, "b _"] | None = None) -> "Where":
        """Put more persistent keys in front, of which the `valid` ones are seen."""
        if valid is None and self.valid_memory is None:
            return replace(self, memory=memory + self.memory)
        ones = torch.ones(1, memory + self.memory, dtype=torch.bool, device=self.keys.device)
        new = ones[:, :memory] if valid is None else valid
        old = ones[:, memory:] if self.valid_memory is None else self.valid_memory
        rows = max(new.shape[0], old.shape[0])
        seen = torch.cat((new.expand(rows, -1), old.expand(rows, -1)), dim=1)
        return replace(self, memory=memory + self.memory, valid_memory=seen, masks={})

    def drop_memory(self) -> "Where":
        """Remove the persistent keys."""
        return replace(self, memory=0, valid_memory=None)

    @classmethod
    def from_cache(cls, cache: Cache, inputs: Inputs) -> "Where":
        """Build the positions of the tokens announced to a cache; each layer adds its own keys.

        Raises:
            ValueError: an input describes whole rows, which cannot be decoded step by step.
        """
        for name in WHOLE_SEQUENCES:
            if getattr(inputs, name) is not None:
                raise ValueError(f"Inputs({name}=...) describes whole sequences; omit it when decoding with a cache")
        extent, prefix = cache.extent, inputs.visible_prefix
        at = extent.get_positions()
        return cls(
            queries=at,
            keys=at,
            visible_prefix=None if prefix is None else prefix.minimum(extent.count_kept()),
            reach=extent.window,
            end=extent.end,
            cached=True,
            aligned=extent.empty,
            unmasked=extent.unmasked,
        )

    @property
    def rows(self) -> int:
        """Number of rows that differ: 1 if all rows share positions and mask."""
        masks = (self.valid, self.valid_memory, self.own_mask)
        tensors = (self.queries, self.keys, self.query_documents, self.visible_prefix, *masks)
        return max(t.shape[0] for t in tensors if t is not None)

    @property
    def causal_after_memory(self) -> bool:
        """True if the mask is just the lower triangle besides the persistent keys, which every query sees."""
        masks = (self.valid, self.valid_memory, self.own_mask)
        extras = (self.window, self.query_documents, self.visible_prefix, *masks)
        return self.aligned and self.causal and all(extra is None for extra in extras)

    @property
    def plain_full(self) -> bool:
        """True if every query sees every key."""
        extras = (self.window, self.valid, self.query_documents, self.valid_memory, self.own_mask)
        return self.unmasked or (not self.causal and all(extra is None for extra in extras))

    def is_visible(self, b: Tensor, i: Tensor, j: Tensor) -> Bool[Tensor, "..."]:
        """Return True where the query with index i sees the key with index j, in row b.

        Written elementwise: broadcast indices give the dense mask, scalars make it flex's mask_mod.
        """
        if self.memory:
            own = self._is_visible(b, i, (j - self.memory).clamp(min=0))
            if self.valid_memory is None:
                return (j < self.memory) | own
            return torch.where(j < self.memory, self.valid_memory[b, j.clamp(max=self.memory - 1)], own)
        return self._is_visible(b, i, j)

    def _is_visible(self, b: Tensor, i: Tensor, j: Tensor) -> Tensor:
        # Not by `expand`: it reads all fields, and a compiled mask would depend on numbers that change with length.
        rows = self.rows
        query, key = self.queries.expand(rows, -1)[b, i], self.keys.expand(rows, -1)[b, j]
        now, then = (query, key) if self.order is None else (self.order[0, i], self.order[0, j])
        seen = then <= now if self.causal else then >= 0
        if self.visible_prefix is not None:
            seen = seen | (then < self.visible_prefix[b])
        if self.window is not None:
            seen = seen & ((query - key).abs() < self.window)
        if self.causal or self.visible_prefix is not None:
            seen = seen & (then >= 0)
        if self.valid is not None:
            seen = seen & self.valid.expand(rows, -1)[b, j]
        if self.query_documents is not None and self.key_documents is not None:
            seen = seen & (self.query_documents[b, i] == self.key_documents[b, j])
        if self.own_mask is not None:
            seen = seen & self.own_mask[b, i, j]
        return seen

    def expand(self, rows: int) -> "Where":
        """Expand shared tensors to a number of rows (without a copy)."""
        if self.queries.shape[0] == rows and self.keys.shape[0] == rows:
            return self
        return replace(self, queries=self.queries.expand(rows, -1), keys=self.keys.expand(rows, -1))

    def build_indices(self, rows: int) -> tuple[Tensor, Tensor, Tensor]:
        """Build broadcast indices of rows (b, 1, 1, 1), queries (1, 1, i, 1) and keys (1, 1, 1, j), memory included."""
        device = self.queries.device
        b = torch.arange(rows, device=device).view(-1, 1, 1, 1)
        i = torch.arange(self.queries.shape[-1], device=device).view(1, 1, -1, 1)
        j = torch.arange(self.memory + self.keys.shape[-1], device=device).view(1, 1, 1, -1)
        return b, i, j

    def dense(self) -> Bool[Tensor, "#b 1 i j"]:
        """Return the mask as a tensor; one row if all rows share it."""

        def make() -> Tensor:
            b, i, j = self.build_indices(self.rows)
            return self.is_visible(b, i, j).expand(-1, -1, i.shape[2], -1)

        return self.make_once("dense", make)

    def pad_to_blocks(self) -> "Where":
        """Pad to whole blocks, once a forward for all layers with this window and memory.

        All layers get one object, whose tensors are new even if nothing is padded: a compiled program is compiled again
        if other tensors are the same ones than before.
        """
        queries, keys = self.queries.shape[-1], self.memory + self.keys.shape[-1]
        return self.make_once("padded", lambda: self.pad(-queries % BLOCK, -keys % BLOCK))

    def pad(self, queries: int, keys: int) -> "Where":
        """Append queries that repeat the last one, so that they see something, and keys that no query sees."""
        valid = self.valid
        if valid is None and (not self.causal or self.order is not None) and keys:
            valid = torch.ones_like(self.keys, dtype=torch.bool)
        return replace(
            self,
            queries=_repeat_last(self.queries, queries),
            keys=torch.cat((self.keys, self.keys.new_full((len(self.keys), keys), -1)), dim=1),
            valid=None if valid is None else pad(valid, (0, keys), value=False),
            query_documents=None if self.query_documents is None else _repeat_last(self.query_documents, queries),
            key_documents=None if self.key_documents is None else pad(self.key_documents, (0, keys), value=-1),
            own_mask=None if self.own_mask is None else pad(self.own_mask, (0, keys, 0, queries), value=False),
            order=None if self.order is None else _repeat_last(self.order, max(queries, keys)),
            aligned=False,
            unmasked=False,
            masks={},
        )

    def block_mask(self) -> BlockMask:
        """Return the mask in flex_attention's form."""
        lengths = self.queries.shape[-1], self.memory + self.keys.shape[-1]
        return self.make_once(
            "blocks", lambda: make_block_mask(self.is_visible, self.rows, lengths, self.queries.device)
        )

    def copy_masks(self) -> "Where":
        """Return a copy with the masks that are made so far. Masks made later belong to one of the two only."""
        copies = {name: dict(each) if isinstance(each, dict) else each for name, each in self.masks.items()}
        return replace(self, masks=copies)

    def make_once(self, form: str, make: Callable[[], T]) -> T:
        """Make one form of the mask, which layers with this window and memory share."""
        key = (form, self.window, self.memory)
        if key not in self.masks:
            self.masks[key] = make()
        made: T = self.masks[key]
        return made


def _repeat_last(t: Int[Tensor, "b i"], more: int) -> Int[Tensor, "b _"]:
    """Append `more` copies of the last column."""
    return torch.cat((t, t[:, -1:].expand(-1, more)), dim=1)
