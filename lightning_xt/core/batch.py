"""What a data module hands to a model beside plain token tensors."""

from typing import NamedTuple

from jaxtyping import Bool, Int
from torch import Tensor


class EvaluationBatch(NamedTuple):
    """Windows of a split that is predicted once and no more.

    Args:
        tokens: ids; row w predicts `tokens[w, t + 1]` from `tokens[w, : t + 1]`, for t = 0 .. n - 1.
        scored: True where the target `tokens[w, t + 1]` counts. The others are context that an earlier window
            counted, or the padding (zeros) to the right of the last window. None = all count.
    """

    tokens: Int[Tensor, "b n+1"]
    scored: Bool[Tensor, "b n"] | None


class PairBatch(NamedTuple):
    """Pairs of a source and its target, padded on the right.

    Args:
        src: source ids.
        tgt: target ids, the start id first, the end id last where there is one.
        src_mask: True where a source id is real.
    """

    src: Int[Tensor, "b m"]
    tgt: Int[Tensor, "b n"]
    src_mask: Bool[Tensor, "b m"]


class EvaluationPairs(NamedTuple):
    """Pairs of a split that is measured once and no more.

    Args:
        src: source ids.
        tgt: target ids, the start id first, the end id last where there is one.
        src_mask: True where a source id is real.
        index: number of the pair in its split; -1 for a row that only fills up, nothing of which counts.
        references: the targets as text, as they stand in their file. None where the pairs are no text.
    """

    src: Int[Tensor, "b m"]
    tgt: Int[Tensor, "b n"]
    src_mask: Bool[Tensor, "b m"]
    index: Int[Tensor, " b"]  # type: ignore[assignment]  # a tuple has a method of this name
    references: list[str] | None
