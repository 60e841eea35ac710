"""Several models that run over the same tokens, and their cache."""

from abc import abstractmethod
from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.batching.row_state import upcast
from lightning_xt.generation.models.model_wrapper import ModelWrapper
from lightning_xt.generation.protocol import Autoregressive, DecodingCache


class JointCache:
    """Caches of several models, with the same rows, that change together."""

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

    def widen(self, rows: int, reserve: int) -> None:
        """Add rows up to a number of rows, in memory that has room for `reserve` rows."""
        for member in self.members:
            member.widen(rows, reserve)

    def overwrite(self, rows: Int[Tensor, " k"], other: "JointCache") -> None:
        """Overwrite rows by those of another cache of the same models."""
        for member, theirs in zip(self.members, other.members, strict=True):
            member.overwrite(rows, theirs)

    def set_lengths(self, lengths: Sequence[int]) -> None:
        """Set the number of tokens that each row holds."""
        for member in self.members:
            member.set_lengths(lengths)

    def clear(self, rows: Int[Tensor, " k"]) -> None:
        """Clear rows."""
        for member in self.members:
            member.clear(rows)


class JointModel(ModelWrapper):
    """Model that combines the scores of several readers of the same tokens.

    It keeps the protocol of a model, so decoding methods work with it, except ContrastiveSearch, which needs a
    Decoder's hidden states.

    Args:
        model: the first reader, whose mode and vocabulary count.
        others: the other readers.
    """

    def __init__(self, model: Autoregressive, *others: Autoregressive) -> None:
        super().__init__(model)
        self.readers = (model, *others)

    @abstractmethod
    def combine(self, log_probs: list[Float[Tensor, "b _ v"]]) -> Float[Tensor, "b _ v"]:
        """Combine the readers' log-probabilities of the token after each given token, in at least float32."""

    def list_inputs(self, inputs: Inputs | None, rows: int) -> list[Inputs | None]:
        """Return the inputs of each reader besides the tokens; all have the same number of soft tokens."""
        return [inputs] * len(self.readers)

    def __call__(
        self,
        tokens: Int[Tensor, "b n"],
        *,
        lengths: Int[Tensor, " b"] | None = None,
        inputs: Inputs | None = None,
        cache: DecodingCache | None = None,
        last_only: bool = False,
    ) -> Float[Tensor, "b _ v"]:
        """Score the token after each given one; arguments as of the models, but TypeError for another cache."""
        count = len(self.readers)
        if cache is not None and not isinstance(cache, JointCache):
            raise TypeError(f"{count} models need a JointCache, but the cache is a {type(cache).__name__}")
        members = [None] * count if cache is None else cache.members
        reading = zip(self.readers, self.list_inputs(inputs, len(tokens)), members, strict=True)
        logits = [
            model(tokens, lengths=lengths, inputs=own, cache=member, last_only=last_only)
            for model, own, member in reading
        ]
        return self.combine([upcast(each).log_softmax(dim=-1) for each in logits])

    @property
    def max_length(self) -> int | None:
        """Longest sequence of all models, in tokens. None = any length."""
        return min((each.max_length for each in self.readers if each.max_length is not None), default=None)

    @property
    def recurrences(self) -> Sequence[str]:
        """Parts of all models with a running state."""
        return sorted({name for each in self.readers for name in each.recurrences})

    def new_cache(self, batch: int, capacity: int, *, slack: int = 64, window: int | None = None) -> JointCache:
        """Return an empty cache; arguments as of the models."""
        return JointCache([each.new_cache(batch, capacity, slack=slack, window=window) for each in self.readers])
