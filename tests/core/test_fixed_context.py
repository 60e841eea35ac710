"""The keys and values of contexts against lists of numbers, while rows come and go."""

import pytest
import torch
from torch import Tensor

from lightning_xt.core.fixed_context import FixedContext

# Row r's vector t is the number 10 r + t; its value is that and a half.


def context(rows: list[int], width: int, lengths: list[int] | None = None) -> FixedContext:
    numbers = 10.0 * torch.tensor(rows)[:, None, None] + torch.arange(width)[None, :, None]
    mask = None if lengths is None else torch.arange(width) < torch.tensor(lengths)[:, None]
    return FixedContext(numbers, numbers + 0.5, mask)


def read_vectors(kept: FixedContext) -> list[list[float]]:
    """Return the real vectors of each row."""
    assert torch.equal(torch.where(kept.real[..., None], kept.keys + 0.5, 0), kept.values * kept.real[..., None])
    return [row[real, 0].tolist() for row, real in zip(kept.keys, kept.real, strict=True)]


def index(*rows: int) -> Tensor:
    return torch.tensor(rows)


def test_all_vectors_are_real_without_a_mask() -> None:
    assert context([0, 1], 3).real.tolist() == [[True] * 3] * 2
    assert read_vectors(context([0, 1], 3, [2, 3])) == [[0, 1], [10, 11, 12]]


def test_selects_rows_with_separate_contexts() -> None:
    assert read_vectors(context([0, 1, 2], 2, [1, 2, 2]).select(index(2, 0, 0), 3)) == [[20, 21], [0], [0]]
    assert context([0, 1], 2).select(index(1), 2).mask is None


def test_selects_whole_groups_of_rows_that_share() -> None:
    """Rows 0 to 2 share a context, rows 3 to 5 another."""
    both = context([0, 1], 2)
    assert read_vectors(both.select(index(3, 5, 4), 6)) == [[10, 11]]
    assert read_vectors(both.select(index(5, 4, 3, 0, 0, 1), 6)) == [[10, 11], [0, 1]]


def test_places_a_narrower_and_a_wider_one() -> None:
    ours = context([0, 1, 2], 3)
    assert read_vectors(ours.overwrite(index(1), context([7], 2))) == [[0, 1, 2], [70, 71], [20, 21, 22]]
    assert read_vectors(ours.overwrite(index(2, 0), context([7, 8], 4, [4, 1]))) == [
        [80],
        [10, 11, 12],
        [70, 71, 72, 73],
    ]
    assert read_vectors(ours) == [[0, 1, 2], [10, 11, 12], [20, 21, 22]], "what was there is not written over"


def test_needs_no_mask_where_none_had_one_and_widths_agree() -> None:
    assert context([0, 1], 3).overwrite(index(0), context([5], 3)).mask is None
    assert context([0, 1], 3).overwrite(index(0), context([5], 3, [2])).mask is not None
    assert context([0, 1], 3, [1, 2]).overwrite(index(0), context([5], 3)).mask.tolist() == [
        [True] * 3,
        [True, True, False],
    ]


def test_spread_puts_rows_among_empty_ones() -> None:
    """Empty rows see zeros, because weights over no keys would be NaN."""
    spread = context([4, 5], 2, [2, 1]).spread(4, index(3, 1))
    assert spread.real.tolist() == [[True, True], [True, False], [True, True], [True, True]]
    assert spread.keys.flatten(1).tolist() == [[0, 0], [50, 51], [0, 0], [40, 41]]
    assert spread.values.flatten(1).tolist() == [[0, 0], [50.5, 51.5], [0, 0], [40.5, 41.5]]


def test_padded_is_itself_where_nothing_is_missing() -> None:
    ours = context([0, 1], 3)
    assert ours.pad(3) is ours
    assert ours.pad(5).keys.shape == (2, 5, 1) and read_vectors(ours.pad(5)) == read_vectors(ours)


@pytest.mark.parametrize("lengths", [None, [2, 1, 2, 1]], ids=["all real", "masked"])
def test_retire_moves_rows_and_leaves_the_mask_that_was_given(lengths: list[int] | None) -> None:
    """The mask belongs to the caller and is one tensor for all layers."""
    ours = context([0, 1, 2, 3], 2, lengths)
    mask, given = ours.mask, ours.real.clone()
    left = ours.retire(index(3), index(0), 2)
    assert read_vectors(left) == ([[30, 31], [10, 11]] if lengths is None else [[30], [10]])
    assert mask is None or torch.equal(mask, given)
    assert read_vectors(context([0, 1], 2).retire(None, None, 1)) == [[0, 1]]
