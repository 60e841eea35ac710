"""Memories: what one segment of a text leaves to the next."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Memories:
    """Vectors of earlier tokens that the next segment reads, immutable.

    Args:
        vectors: vectors of the remembered tokens, for each call that reads them.
        embedded: the same tokens as the first layer read them. None = not kept.
        tokens: their ids. None = not kept.
        documents: their document numbers; the last token's is 0. None = one document.
        valid: True for tokens that may be seen. None = all.
        condition: their conditions. None = one condition a row, or none.
    """

    vectors: tuple[Float[Tensor, "b m D"], ...]
    embedded: Float[Tensor, "b m D"] | None = None
    tokens: Int[Tensor, "b m"] | None = None
    documents: Int[Tensor, "b m"] | None = None
    valid: Bool[Tensor, "b m"] | None = None
    condition: Float[Tensor, "b m _"] | None = None

    @property
    def num_tokens(self) -> int:
        """Number of slots, those of unseen tokens included."""
        return self.vectors[0].shape[1]

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.vectors[0])

    @property
    def seen(self) -> Bool[Tensor, "b m"]:
        """True for tokens that may be seen."""
        if self.valid is not None:
            return self.valid
        return torch.ones(self.vectors[0].shape[:2], dtype=torch.bool, device=self.vectors[0].device)

    def detach(self) -> "Memories":
        """Cut the gradients to the segments before."""
        return self._map(Tensor.detach)

    def select(self, rows: Int[Tensor, " b"] | Sequence[int]) -> "Memories":
        """Keep, repeat or reorder rows."""
        index = torch.as_tensor(rows, device=self.vectors[0].device)
        return self._map(lambda t: t[index])

    def reset(self, rows: Bool[Tensor, " b"]) -> "Memories":
        """Let the rows marked True begin without memories."""
        return replace(self, valid=self.seen & ~rows[:, None])

    def keep_last(self, m: int, lengths: Int[Tensor, " b"] | None = None) -> "Memories":
        """Keep the last m tokens, or the last of the first `lengths` tokens of each row."""
        n = self.num_tokens
        m = min(m, n)
        if lengths is None:
            return self._map(lambda t: t[:, n - m :])
        at, real = find_last(n, m, lengths)
        rows = torch.arange(len(at), device=at.device)[:, None]
        kept = self._map(lambda t: t[rows, at])
        return replace(kept, valid=real if kept.valid is None else real & kept.valid)

    def pad(self, m: int) -> "Memories":
        """Put unseen tokens in front, up to m in all."""
        more = m - self.num_tokens
        padded = replace(self, valid=self.seen)._map(
            lambda t: torch.cat((t.new_zeros(len(t), more, *t.shape[2:]), t), 1)
        )
        return padded if more else replace(self, valid=self.seen)

    def overwrite(self, rows: Int[Tensor, " k"], other: "Memories") -> "Memories":
        """Overwrite rows by those of other memories with as many tokens."""
        named = {name: getattr(self, name) for name in _OPTIONAL}
        theirs = {name: getattr(other, name) for name in _OPTIONAL}
        changed = {
            name: None if named[name] is None or theirs[name] is None else named[name].index_copy(0, rows, theirs[name])
            for name in _OPTIONAL
        }
        pairs = zip(self.vectors, other.vectors, strict=True)
        return Memories(tuple(mine.index_copy(0, rows, new) for mine, new in pairs), **changed)

    def to_state(self) -> dict[str, Any]:
        """Return a dict of tensors for a checkpoint."""
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"vectors": list(self.vectors)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Memories":
        """Restore what `to_state` returned."""
        return cls(**{**state, "vectors": tuple(state["vectors"])})

    def _map(self, change: Any) -> "Memories":
        named = {name: getattr(self, name) for name in _OPTIONAL}
        changed = {name: None if value is None else change(value) for name, value in named.items()}
        return Memories(tuple(map(change, self.vectors)), **changed)


_OPTIONAL = ("embedded", "tokens", "documents", "valid", "condition")


def find_last(n: int, m: int, lengths: Int[Tensor, " b"]) -> tuple[Int[Tensor, "b m"], Bool[Tensor, "b m"]]:
    """Find the indices of the last m real tokens of each row, and True for those that exist; n tokens are given."""
    at = lengths[:, None] - m + torch.arange(m, device=lengths.device)
    return at.clamp(0, n - 1), at >= 0
