"""The memory of several models that read the same tokens."""

from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.batching.row_state import upcast
from lightning_xt.generation.protocol import Autoregressive, DecodingCache


class JointCache:
    """Several memories that change together, as one.

    Args:
        members: one for each reader of the tokens, all of the same rows.
    """

    def __init__(self, members: Sequence[DecodingCache]) -> None:
        self.members = list(members)

    @property
    def bound(self) -> int:
        """No row holds more tokens than this."""
        return max(member.bound for member in self.members)

    def select(self, rows: Int[Tensor, " b"]) -> None:
        """Keeps, repeats or reorders rows."""
        for member in self.members:
            member.select(rows)

    def repeat(self, times: int) -> None:
        """Repeats each row in place, as often."""
        for member in self.members:
            member.repeat(times)

    def reorder(self, rows: Int[Tensor, " b"]) -> None:
        """The same as `select` among rows that share a context."""
        for member in self.members:
            member.reorder(rows)

    def truncate(self, length: int | Int[Tensor, " b"]) -> None:
        """Forgets every token from a position on."""
        for member in self.members:
            member.truncate(length)

    def retire(self, moves: Sequence[tuple[int, int]], rows: int) -> None:
        """Lets the last rows go after some of them were moved: (from, to)."""
        for member in self.members:
            member.retire(moves, rows)

    def place(self, rows: Int[Tensor, " k"], other: "JointCache") -> None:
        """Puts rows of another memory of the same readers in the place of some."""
        for member, theirs in zip(self.members, other.members, strict=True):
            member.place(rows, theirs)

    def set_lengths(self, lengths: Sequence[int]) -> None:
        """Tells how many tokens each row holds."""
        for member in self.members:
            member.set_lengths(lengths)

    def clear(self, rows: Int[Tensor, " k"]) -> None:
        """Forgets all that some rows hold."""
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
    """Log-probabilities of each reader for the token after each of the given ones, in float32 or finer.

    Args:
        readers: models, and what each is given beside the tokens; as many soft tokens to all of them.
        tokens: ids, as of a model.
        lengths: as of a model.
        cache: of these readers. None = none.
        last_only: as of a model.

    Raises:
        TypeError: a cache that is not of several readers.
    """
    if cache is not None and not isinstance(cache, JointCache):
        raise TypeError(f"{len(readers)} readers need a memory each, but the cache is a {type(cache).__name__} alone")
    members = [None] * len(readers) if cache is None else cache.members
    logits = [
        model(tokens, lengths=lengths, inputs=inputs, cache=member, last_only=last_only)
        for (model, inputs), member in zip(readers, members, strict=True)
    ]
    return [upcast(each).log_softmax(dim=-1) for each in logits]
