"""Batches that hold more than a tensor of tokens."""

from typing import NamedTuple

from jaxtyping import Bool, Int
from torch import Tensor


class EvaluationBatch(NamedTuple):
    """Windows of a split in which every token is predicted once.

    Args:
        tokens: ids; row w predicts `tokens[w, t + 1]` from `tokens[w, : t + 1]`, for t = 0 .. n - 1.
        scored: True if the target `tokens[w, t + 1]` counts. The others are context that an earlier window counted, or
            the padding (zeros) to the right of the last window. None = all count.
    """

    tokens: Int[Tensor, "b n+1"]
    scored: Bool[Tensor, "b n"] | None


class LaneBatch(NamedTuple):
    """Rows that continue those of an earlier batch: row r begins with the last token of row r there.

    Args:
        tokens: n + 1 ids per row, of which each predicts the next.
        scored: True if the target `tokens[w, t + 1]` counts. None = all count.
        begins: True if no row continues an earlier one, False if every row does.
        group: number of the batch in its optimizer step, from 0; rows continue those of the latest batch with the same
            number.
    """

    tokens: Int[Tensor, "b n+1"]
    scored: Bool[Tensor, "b n"] | None
    begins: bool
    group: int = 0


class PackedBatch(NamedTuple):
    """Rows in which some targets count: each holds one example, or several, which must not see each other.

    Args:
        tokens: n + 1 ids per row, of which each predicts the next.
        scored: True if the target `tokens[w, t + 1]` counts.
        documents: number of the example of each of the first n ids of a row, from 0; padding has one more. None = a row
            is one example, padded on the right.
    """

    tokens: Int[Tensor, "b n+1"]
    scored: Bool[Tensor, "b n"]
    documents: Int[Tensor, "b n"] | None


class PairBatch(NamedTuple):
    """Pairs of a source and its target, padded on the right.

    Args:
        src: source ids.
        tgt: target ids, the start id first, the end id last if there is one.
        src_mask: True for real source ids.
    """

    src: Int[Tensor, "b m"]
    tgt: Int[Tensor, "b n"]
    src_mask: Bool[Tensor, "b m"]


class EvaluationPairs(NamedTuple):
    """Pairs of a split in which every pair is measured once.

    Args:
        src: source ids.
        tgt: target ids, the start id first, the end id last if there is one.
        src_mask: True for real source ids.
        index: number of the pair in its split; -1 for a row that only fills up and does not count.
        references: the targets as text, as in their file. None if the pairs are not text.
        sources: the sources likewise.
        repeats: number of equal sources before each in the split, if they are text.
    """

    src: Int[Tensor, "b m"]
    tgt: Int[Tensor, "b n"]
    src_mask: Bool[Tensor, "b m"]
    index: Int[Tensor, " b"]  # type: ignore[assignment]  # a tuple has a method of this name
    references: list[str] | None
    sources: list[str] | None = None
    repeats: list[int] | None = None


def find_inner_padding(tgt: Int[Tensor, "b n"], pad: int | None) -> str | None:
    """Describe the first pad id that stands between other ids of a target, after its start id; None if there is none.

    A loss skips pad ids, so that no model would learn such a token.
    """
    if pad is None:
        return None
    padding = tgt[:, 1:] == pad
    # A negative id is one that a user has taken out of the loss.
    followed = (~padding & (tgt[:, 1:] >= 0)).flip(1).cumsum(1).flip(1) > 0
    inner = (padding & followed).nonzero()
    if not len(inner):
        return None
    row, place = (int(each) for each in inner[0])
    return (
        f"target {row} has the padding id {pad} at place {place + 1}, before other ids; the loss skips padding, "
        "so no model would learn it"
    )
