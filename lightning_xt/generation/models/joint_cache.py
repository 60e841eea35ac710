"""One cache for several models that run over the same tokens."""

from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.batching.row_state import upcast
from lightning_xt.generation.protocol import Autoregressive, DecodingCache


class JointCache:
    """Several caches that change together.

    Args:
        members: one per model, all with the same rows.
    """

    def __init__(self, members: Sequence[DecodingCache]) -> None:
        self.members = list(members)

    @property
    def bound(self) -> int:
        """Most tokens that any row holds."""
        return max(member.bound for member in self.members)

    def select(self, rows: Int[Tensor, " b"]) -> None:
        """Keep, repeat or reorder rows."""
        for member in self.members:
            member.select(rows)

    def repeat(self, times: int) -> None:
        """Repeat each row in place."""
        for member in self.members:
            member.repeat(times)

    def reorder(self, rows: Int[Tensor, " b"]) -> None:
        """Select rows among those that share a context."""
        for member in self.members:
            member.reorder(rows)

    def truncate(self, length: int | Int[Tensor, " b"]) -> None:
        """Drop every token from a position on."""
        for member in self.members:
            member.truncate(length)

    def retire(self, moves: Sequence[tuple[int, int]], rows: int) -> None:
        """Move some rows, (from, to), and drop the last ones."""
        for member in self.members:
            member.retire(moves, rows)

    def place(self, rows: Int[Tensor, " k"], other: "JointCache") -> None:
        """Overwrite rows by those of another cache of the same models."""
        for member, theirs in zip(self.members, other.members, strict=True):
            member.place(rows, theirs)

    def set_lengths(self, lengths: Sequence[int]) -> None:
        """Set the number of tokens that each row holds."""
        for member in self.members:
            member.set_lengths(lengths)

    def clear(self, rows: Int[Tensor, " k"]) -> None:
        """Clear rows."""
        for member in self.members:
            member.clear(rows)


def score_jointly(
    readers: Sequence[tuple[Autoregressive, Inputs | None]],
    tokens: Int[Tensor, "b n"],
    *,
    lengths: Int[Tensor, " b"] | None,
    cache: DecodingCache | None,
    last_only: bool,
) -> list[Float[Tensor, "b _ v"]]:
    """Return each model's log-probabilities of the token after each given token, in at least float32.

    Args:
        readers: models with their inputs besides tokens; all have the same number of soft tokens.
        tokens: ids, as of a model.
        lengths: as of a model.
        cache: joint cache of these models. None = none.
        last_only: as of a model.

    Raises:
        TypeError: the cache is not a joint cache.
    """
    if cache is not None and not isinstance(cache, JointCache):
        raise TypeError(f"{len(readers)} models need a JointCache, but the cache is a {type(cache).__name__}")
    members = [None] * len(readers) if cache is None else cache.members
    logits = [
        model(tokens, lengths=lengths, inputs=inputs, cache=member, last_only=last_only)
        for (model, inputs), member in zip(readers, members, strict=True)
    ]
    return [upcast(each).log_softmax(dim=-1) for each in logits]
