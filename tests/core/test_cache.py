"""The cache against lists of numbers: places of writes, results of reads, and refusals."""

import copy
import gc
import re
import weakref

import pytest
import torch
from torch import Tensor

from lightning_xt.core.cache import Cache
from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.extent import min_window
from lightning_xt.core.fixed_context import FixedContext

# The cache stores a token's number: row r's token t is 100 r + t.


def tokens(rows: int, start: int, n: int) -> Tensor:
    """Return the (rows, n, 1) numbers of tokens start, start + 1, ..."""
    return (100 * torch.arange(rows)[:, None, None] + torch.arange(start, start + n)[None, :, None]).float()


def feed(cache: Cache, new: Tensor, window: int | None = None, lengths: list[int] | None = None) -> dict[int, Tensor]:
    """Append new tokens, and return the cached numbers of each row that some query sees, by position."""
    cache.begin(new.shape[1], None if lengths is None else torch.tensor(lengths))
    keys = cache[0].get_key_positions(window)
    out = cache[0].append("x", new, window=window).squeeze(-1)
    assert keys.shape[-1] == out.shape[-1]
    queries = cache.extent.get_positions().expand(new.shape[0], -1)
    keys = keys.expand(new.shape[0], -1)
    seen = {}
    for row in range(new.shape[0]):
        last = int(queries[row, (lengths[row] if lengths else new.shape[1]) - 1])
        at = [(int(k), float(x)) for k, x in zip(keys[row], out[row], strict=True) if 0 <= k <= last]
        assert len({k for k, _ in at}) == len(at), "a position twice"
        seen[row] = dict(sorted(at))
    cache.commit()
    return seen


def test_appended_tokens_come_back_in_order() -> None:
    cache = Cache(2, 7, calls=1)
    assert feed(cache, tokens(2, 0, 3)) == {0: {0: 0, 1: 1, 2: 2}, 1: {0: 100, 1: 101, 2: 102}}
    assert feed(cache, tokens(2, 3, 1))[1] == {0: 100, 1: 101, 2: 102, 3: 103}
    assert feed(cache, tokens(2, 4, 3))[0] == {t: t for t in range(7)}
    assert cache.lengths.tolist() == [7, 7] and cache.bound == 7 and cache.extent.uniform


def test_tensors_with_heads_keep_them() -> None:
    cache = Cache(2, 7, calls=1)
    cache.begin(3)
    new = torch.randn(2, 5, 3, 4)
    assert torch.equal(cache[0].append("x", new), new)
    cache.commit()
    cache.begin(1)
    more = torch.randn(2, 5, 1, 4)
    assert torch.equal(cache[0].append("x", more), torch.cat((new, more), dim=-2))


def test_rows_of_different_lengths_overwrite_their_padding() -> None:
    cache = Cache(2, 9, calls=1)
    padded = tokens(2, 0, 4)
    padded[1, 2:] = -1
    feed(cache, padded, lengths=[4, 2])
    assert cache.lengths.tolist() == [4, 2] and not cache.extent.uniform
    new = torch.tensor([[[4.0], [5.0]], [[102.0], [103.0]]])
    assert feed(cache, new) == {0: {t: t for t in range(6)}, 1: {t: 100 + t for t in range(4)}}
    assert cache.lengths.tolist() == [6, 4] and cache.bound == 6


@pytest.mark.parametrize("slack", [0, 1, 2, 5])
@pytest.mark.parametrize("pieces", [[1] * 17, [4, 1, 1, 3, 8], [2, 2, 2, 2, 9], [17], [9, 1, 7]], ids=str)
def test_a_window_wraps_around_and_keeps_what_readers_need(pieces: list[int], slack: int) -> None:
    window, cache, start = 3, Cache(2, 17, calls=1, slack=slack), 0
    for n in pieces:
        seen = feed(cache, tokens(2, start, n), window=window)
        for row in (0, 1):
            needed = range(max(0, start - window + 1), start + n)
            assert {t: seen[row].get(t) for t in needed} == {t: 100 * row + t for t in needed}
            assert all(number == 100 * row + t for t, number in seen[row].items())
        start += n
    assert cache[0]._buffers["x"].shape == (2, window + slack, 1)


@pytest.mark.parametrize("slack", [1, 3])
def test_a_window_over_rows_of_different_lengths(slack: int) -> None:
    window, cache, have = 3, Cache(2, 40, calls=1, slack=slack), [0, 0]
    for lengths in ([5, 2], [1, 1], [2, 1], [1, 2], [4, 1], [3, 3], [1, 1]):
        n = max(lengths)
        new = torch.full((2, n, 1), -1.0)
        for row, length in enumerate(lengths):
            new[row, :length, 0] = 100 * row + torch.arange(have[row], have[row] + length)
        seen = feed(cache, new, window=window, lengths=lengths)
        for row, length in enumerate(lengths):
            needed = range(max(0, have[row] - window + 1), have[row] + length)
            assert {t: seen[row].get(t) for t in needed} == {t: 100 * row + t for t in needed}
            have[row] += length
    assert cache.lengths.tolist() == have


def test_a_window_wider_than_the_capacity_is_ignored() -> None:
    cache = Cache(1, 5, calls=1, slack=2)
    assert (
        cache.extent.count_slots(None),
        cache.extent.count_slots(2),
        cache.extent.count_slots(3),
        cache.extent.count_slots(100),
    ) == (5, 4, 5, 5)


def test_last_is_the_token_right_before() -> None:
    cache = Cache(2, 9, calls=1, slack=2)
    call: CallCache = cache[0]
    like = tokens(2, 0, 1)
    cache.begin(3, torch.tensor([3, 1]))
    assert call.get_last("x", like).flatten().tolist() == [0, 0]
    call.append("x", tokens(2, 0, 3), window=1)
    cache.commit()
    cache.begin(1)
    assert call.get_last("x", like).flatten().tolist() == [2, 100]
    call.append("x", torch.tensor([[[3.0]], [[101.0]]]), window=1)
    cache.commit()
    cache.begin(1)
    assert call.get_last("x", like).flatten().tolist() == [3, 101]
    assert call.get_last("never appended", like).flatten().tolist() == [0, 0]


def test_last_is_zero_for_a_row_taken_back_to_its_start() -> None:
    cache = Cache(2, 9, calls=1)
    feed(cache, tokens(2, 1, 9))
    cache.truncate(torch.tensor([0, 2]))
    assert cache[0].get_last("x", tokens(2, 0, 1)).flatten().tolist() == [0, 102]


def test_truncate_forgets_from_a_position_on() -> None:
    cache = Cache(2, 9, calls=1)
    feed(cache, tokens(2, 0, 6))
    cache.truncate(4)
    assert cache.lengths.tolist() == [4, 4] and cache.bound == 4 and cache.extent.uniform
    assert feed(cache, tokens(2, 4, 1)) == {row: {t: 100 * row + t for t in range(5)} for row in (0, 1)}
    cache.truncate(100)
    assert cache.lengths.tolist() == [5, 5]


def test_truncate_to_a_length_for_each_row() -> None:
    cache = Cache(2, 9, calls=1)
    feed(cache, tokens(2, 0, 6))
    cache.truncate(torch.tensor([5, 2]))
    assert cache.lengths.tolist() == [5, 2]
    new = torch.tensor([[[5.0]], [[102.0]]])
    assert feed(cache, new) == {0: {t: t for t in range(6)}, 1: {t: 100 + t for t in range(3)}}


def test_a_window_takes_back_as_many_tokens_as_its_slack() -> None:
    cache = Cache(1, 20, calls=1, slack=3)
    for t in range(11):
        feed(cache, tokens(1, t, 1), window=4)
    cache.truncate(8)
    seen = feed(cache, tokens(1, 8, 1), window=4)[0]
    assert {t: seen.get(t) for t in range(5, 9)} == {5: 5, 6: 6, 7: 7, 8: 8}


@pytest.mark.parametrize("length", [6, torch.tensor([6])])
def test_a_window_cannot_take_back_more_than_its_slack(length: int | Tensor) -> None:
    cache = Cache(1, 20, calls=1, slack=3)
    for t in range(11):
        feed(cache, tokens(1, t, 1), window=4)
    message = "cannot remove 5 tokens: a window keeps 3 beyond its width; use new_cache(..., slack=5)"
    with pytest.raises(ValueError, match=re.escape(message)):
        cache.truncate(length)
    assert cache.lengths.tolist() == [11]


def test_slack_is_the_bound_itself() -> None:
    cache = Cache(1, 20, calls=1, slack=3)
    for t in range(11):
        feed(cache, tokens(1, t, 1), window=4)
    with pytest.raises(ValueError, match="cannot remove 4 tokens: a window keeps 3"):
        cache.truncate(7)


def test_select_reorders_repeats_and_drops_rows() -> None:
    cache = Cache(3, 9, calls=2)
    feed(cache, tokens(3, 0, 3), lengths=[3, 2, 1])
    numbers, mask = torch.tensor([7.0, 8.0, 9.0])[:, None, None], torch.tensor([True, False, True])[:, None]
    cache[1].fixed["context"] = FixedContext(numbers, numbers + 10, mask)
    cache.select(torch.tensor([2, 0, 0, 1]))
    assert cache.lengths.tolist() == [1, 3, 3, 2]
    kept = cache[1].fixed["context"]
    assert kept.keys.flatten().tolist() == [9, 7, 7, 8]
    assert kept.values.flatten().tolist() == [19, 17, 17, 18]
    assert kept.mask.flatten().tolist() == [True, True, True, False]
    new = torch.tensor([[[201.0]], [[3.0]], [[3.0]], [[102.0]]])
    seen = feed(cache, new)
    assert seen == {
        0: {0: 200, 1: 201},
        1: {0: 0, 1: 1, 2: 2, 3: 3},
        2: {0: 0, 1: 1, 2: 2, 3: 3},
        3: {0: 100, 1: 101, 2: 102},
    }
    cache.select(torch.tensor([3]))
    assert cache.lengths.tolist() == [3]


def feed_one(cache: Cache, rows: list[int], window: int | None = None) -> dict[int, dict[int, float]]:
    """Feed each row one more token, row r the number -1 - r, and return the numbers that it then sees.

    Args:
        rows: the numbers r.
        window: window of the readers.
    """
    return feed(cache, torch.tensor([[[-1.0 - row]] for row in rows]), window=window)


def line(row: int, n: int, new: int, start: int = 0) -> dict[int, float]:
    """Return row r's tokens from `start`, and the one that `feed_one` adds."""
    return {**{t: 100 * row + t for t in range(start, n)}, n: -1.0 - new}


def test_repeat_keeps_repeated_rows_side_by_side_and_shares_their_context() -> None:
    cache = Cache(2, 9, calls=1)
    feed(cache, tokens(2, 0, 3), lengths=[3, 2])
    numbers = torch.tensor([7.0, 8.0])[:, None, None]
    cache[0].fixed["context"] = kept = FixedContext(numbers, numbers, None)
    cache[0].running["state"] = torch.tensor([[5.0], [6.0]])
    cache.repeat(3)
    assert cache.lengths.tolist() == [3, 3, 3, 2, 2, 2]
    assert cache[0].fixed["context"] is kept
    assert cache[0].running["state"].flatten().tolist() == [5, 5, 5, 6, 6, 6]
    assert feed_one(cache, [0, 1, 2, 3, 4, 5]) == {row: line(row // 3, 3 - row // 3, row) for row in range(6)}


def test_reorder_moves_rows_and_leaves_contexts_where_they_are() -> None:
    cache = Cache(2, 9, calls=1)
    feed(cache, tokens(2, 0, 3), lengths=[3, 2])
    numbers = torch.tensor([7.0, 8.0])[:, None, None]
    cache[0].fixed["context"] = kept = FixedContext(numbers, numbers, None)
    cache[0].running["state"] = torch.tensor([[5.0], [6.0]])
    cache.repeat(2)
    feed_one(cache, [0, 1, 2, 3])
    cache.reorder(torch.tensor([1, 1, 3, 2]))
    assert cache.lengths.tolist() == [4, 4, 3, 3]
    assert cache[0].fixed["context"] is kept
    assert cache[0].running["state"].flatten().tolist() == [5, 5, 6, 6]
    seen = feed_one(cache, [0, 0, 0, 0])
    assert seen[0] == {**line(0, 3, 1), 4: -1} and seen[3] == {**line(1, 2, 2), 3: -1}


def test_select_takes_shared_contexts_of_whole_groups() -> None:
    cache = Cache(3, 9, calls=1)
    feed(cache, tokens(3, 0, 2))
    numbers = torch.tensor([7.0, 8.0, 9.0])[:, None, None]
    cache[0].fixed["context"] = FixedContext(numbers, numbers, None)
    cache.repeat(2)
    cache.select(torch.tensor([5, 4, 1, 1]))
    assert cache[0].fixed["context"].keys.flatten().tolist() == [9, 7]


@pytest.mark.parametrize("window", [None, 3])
def test_retire_moves_the_last_rows_into_the_places_of_others(window: int | None) -> None:
    cache = Cache(5, 20, calls=1, slack=2)
    feed(cache, tokens(5, 0, 7), window=window, lengths=[7, 3, 5, 1, 4])
    mask = torch.tensor([[True, False], [True, True], [False, True], [True, True], [False, True]])
    numbers, given = torch.arange(5.0)[:, None, None].expand(-1, 2, -1), mask.clone()
    cache[0].fixed["context"] = FixedContext(numbers.clone(), numbers + 10, mask)
    cache[0].running["state"] = torch.arange(5.0)[:, None]
    cache.retire([(4, 0), (3, 2)], 3)
    cache.set_lengths([4, 3, 1])
    assert cache.lengths.tolist() == [4, 3, 1] and cache.bound == 4 and not cache.extent.uniform
    assert cache[0].running["state"].flatten().tolist() == [4, 1, 3]
    kept = cache[0].fixed["context"]
    assert kept.keys[:, 0].flatten().tolist() == [4, 1, 3] and kept.values[:, 1].flatten().tolist() == [14, 11, 13]
    assert kept.mask.tolist() == [[False, True], [True, True], [True, True]]
    assert torch.equal(mask, given), "the caller's mask is left as it was"
    seen = feed_one(cache, [0, 1, 2], window)
    for row, (old, n) in enumerate([(4, 4), (1, 3), (3, 1)]):
        expected = line(old, n, row, start=0 if window is None else max(0, n - window + 1))
        assert {t: seen[row].get(t) for t in expected} == expected


def test_retire_without_moves_lets_the_last_rows_go() -> None:
    cache = Cache(3, 9, calls=1)
    feed(cache, tokens(3, 0, 4), lengths=[2, 4, 3])
    cache.retire([], 1)
    cache.set_lengths([2])
    assert cache.lengths.tolist() == [2] and cache.bound == 2 and cache.extent.uniform
    assert feed_one(cache, [0]) == {0: line(0, 2, 0)}


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("capacity", [3, 20], ids=["its prompt alone", "as much"])
def test_place_puts_rows_of_another_cache(capacity: int, window: int | None) -> None:
    """Numbers of the other cache are 1000 more; rows continue at their positions, whatever their slots held before."""
    cache, other = Cache(3, 20, calls=1, slack=2), Cache(2, capacity, calls=1, slack=2)
    feed(cache, tokens(3, 0, 7), window=window, lengths=[7, 3, 5])
    feed(other, tokens(2, 0, 3) + 1000, window=window, lengths=[3, 1])
    cache[0].running["state"], other[0].running["state"] = torch.arange(3.0)[:, None], torch.tensor([[8.0], [9.0]])
    cache.overwrite(torch.tensor([2, 0]), other)
    assert cache.lengths.tolist() == [1, 3, 3] and cache.bound == 7 and not cache.extent.uniform and not cache.empty
    cache.set_lengths([1, 3, 3])
    assert cache.bound == 3
    assert cache[0].running["state"].flatten().tolist() == [9, 1, 8]
    seen = feed_one(cache, [0, 1, 2], window)
    wanted = {0: {0: 1100, 1: -1}, 1: line(1, 3, 1), 2: {0: 1000, 1: 1001, 2: 1002, 3: -3}}
    for row, expected in wanted.items():
        visible = {t: x for t, x in expected.items() if window is None or t > max(expected) - window}
        assert {t: seen[row].get(t) for t in visible} == visible
        assert seen[row].items() <= expected.items()


def test_place_into_an_empty_cache_makes_what_is_missing() -> None:
    cache, other = Cache(3, 9, calls=1), Cache(1, 2, calls=1)
    feed(other, tokens(1, 5, 2))
    numbers = torch.tensor([7.0])[:, None, None]
    other[0].fixed["context"] = FixedContext(numbers, numbers, None)
    other[0].running["state"] = torch.tensor([[4.0]])
    cache.overwrite(torch.tensor([1]), other)
    assert cache.lengths.tolist() == [0, 2, 0] and cache.bound == 2 and not cache.empty
    assert cache[0].running["state"].flatten().tolist() == [0, 4, 0]
    assert cache[0].fixed["context"].keys.flatten().tolist() == [0, 7, 0]
    assert feed_one(cache, [0, 1, 2]) == {0: {0: -1}, 1: {0: 5, 1: 6, 2: -2}, 2: {0: -3}}


def test_place_takes_contexts_of_other_widths() -> None:
    cache, other = Cache(2, 9, calls=1), Cache(1, 9, calls=1)
    feed(cache, tokens(2, 0, 1))
    feed(other, tokens(1, 0, 1))
    numbers = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[..., None]
    cache[0].fixed["context"] = FixedContext(numbers, numbers, None)
    other[0].fixed["context"] = FixedContext(torch.full((1, 3, 1), 9.0), torch.full((1, 3, 1), 9.0), None)
    cache.overwrite(torch.tensor([0]), other)
    kept = cache[0].fixed["context"]
    assert kept.keys.squeeze(-1).tolist() == [[9, 9, 9], [3, 4, 0]]
    assert kept.mask.tolist() == [[True, True, True], [True, True, False]]


def test_a_row_that_was_placed_takes_back_no_more_than_it_could_before() -> None:
    cache, other = Cache(2, 20, calls=1, slack=3), Cache(1, 20, calls=1, slack=3)
    for t in range(11):
        feed(other, tokens(1, t, 1), window=4)
    cache.overwrite(torch.tensor([1]), other)
    with pytest.raises(ValueError, match="cannot remove 4 tokens: a window keeps 3 beyond its width"):
        cache.truncate(7)
    cache.truncate(8)
    assert cache.lengths.tolist() == [0, 8]


def test_place_refuses_rows_that_do_not_fit() -> None:
    cache, other = Cache(2, 3, calls=1), Cache(1, 9, calls=1)
    feed(other, tokens(1, 0, 4))
    with pytest.raises(ValueError, match="a row of up to 4 tokens does not fit into a cache of 3"):
        cache.overwrite(torch.tensor([0]), other)
    assert cache.lengths.tolist() == [0, 0] and cache.empty


def test_settle_says_how_many_tokens_there_are() -> None:
    cache = Cache(2, 9, calls=1)
    feed(cache, tokens(2, 0, 5), lengths=[2, 2])
    assert cache.bound == 2 and not cache.extent.uniform
    cache.set_lengths([2, 2])
    assert cache.bound == 2 and cache.extent.uniform
    assert feed_one(cache, [0, 1]) == {0: line(0, 2, 0), 1: line(1, 2, 1)}


@pytest.mark.parametrize("window", [None, 3])
def test_cases_p10_padding_of_earlier_pieces_takes_no_room(window: int | None) -> None:
    cache = Cache(2, 9, calls=1, slack=4)
    for piece in range(6):
        # One real token a row and 3 of padding, of which 9 slots would hold two pieces only.
        piece_tokens = torch.cat((tokens(2, piece, 1), tokens(2, 50, 3)), dim=1)
        seen = feed(cache, piece_tokens, window, lengths=[1, 1])
        first = 0 if window is None else max(0, piece - window + 1)
        for row in range(2):
            kept = {at: value for at, value in seen[row].items() if at >= first}
            assert kept == {t: 100 * row + t for t in range(first, piece + 1)}
    assert cache.bound == 6 and cache.lengths.tolist() == [6, 6]
    with pytest.raises(ValueError, match="the cache holds 9 tokens a row, 6 are taken and 4 more were given"):
        cache.begin(4, torch.tensor([1, 1]))


def test_a_row_that_is_cleared_begins_again() -> None:
    cache = Cache(3, 9, calls=1)
    feed(cache, tokens(3, 0, 4))
    cache.clear(torch.tensor([0, 2]))
    assert cache.lengths.tolist() == [0, 4, 0] and cache.bound == 4 and not cache.extent.uniform
    assert cache[0].get_last("x", tokens(3, 0, 1)).flatten().tolist() == [0, 103, 0]
    assert feed_one(cache, [0, 1, 2]) == {0: {0: -1}, 1: line(1, 4, 1), 2: {0: -3}}


# Windows of the cache, and static ones --------------------------------------------------------------------------------


def test_a_window_of_the_cache_narrows_those_of_readers() -> None:
    cache = Cache(1, 50, calls=1, slack=2, window=5)
    assert [cache.extent.count_slots(window) for window in (None, 3, 5, 9)] == [7, 5, 7, 7]
    assert [min_window(window, 5) for window in (None, 3, 5, 9)] == [5, 3, 5, 5] and min_window(None, None) is None
    assert Cache(1, 6, calls=1, slack=2, window=5).extent.count_slots(None) == 6, "what it holds is less than a ring"


@pytest.mark.parametrize("static", [False, True])
def test_a_window_of_the_cache_holds_any_reader_to_a_ring(static: bool) -> None:
    cache = Cache(2, 30, calls=1, slack=1, window=3, static=static)
    feed(cache, tokens(2, 0, 5))
    for t in range(5, 25):
        seen = feed(cache, tokens(2, t, 1))
        for row in (0, 1):
            assert {k: seen[row].get(k) for k in range(t - 2, t + 1)} == {k: 100 * row + k for k in range(t - 2, t + 1)}
    assert cache[0]._buffers["x"].shape == (2, 4, 1)


@pytest.mark.parametrize("window", [0, -3])
def test_refuses_a_window_that_sees_nothing(window: int) -> None:
    message = f"a cache's window is {window}; it must be at least 1 token, or None for any distance"
    with pytest.raises(ValueError, match=message):
        Cache(1, 5, calls=1, window=window)


def test_steps_of_a_static_cache_see_shapes_that_seldom_change() -> None:
    cache, seen = Cache(2, 300, calls=1, static=True), []
    feed(cache, tokens(2, 0, 100), lengths=[100, 60])
    for t in range(100, 300):
        cache.begin(1)
        positions = cache.extent.get_positions()
        assert positions.flatten().tolist() == [t, t - 40]
        new = torch.tensor([[[float(t)]], [[60.0 + t]]])
        out, keys = cache[0].append("x", new), cache[0].get_key_positions()
        assert out.shape[1] == keys.shape[1] == cache.extent.end and torch.equal(
            keys[0], torch.arange(cache.extent.end)
        )
        assert out[0, t].item() == t and out[1, t - 40].item() == 60 + t and out[1, 59].item() == 159
        seen.append(cache.extent.end)
        cache.commit()
    whole = [size for size in (160, 192, 224, 256, 288) for _ in range(32)]
    assert seen == [128] * 28 + whole + [320] * 12


@pytest.mark.parametrize(("asked", "holds"), [(1, 64), (128, 160), (129, 192), (300, 352)])
def test_a_static_cache_holds_whole_steps_and_one_more(asked: int, holds: int) -> None:
    cache = Cache(1, asked, calls=1, static=True)
    assert cache.capacity == cache.extent.count_slots(None) == holds
    assert cache.extent.count_slots(asked + 1000) == asked + 1000 + 64, "a ring is one, however short the texts"


@pytest.mark.parametrize("window", [None, 3])
def test_a_static_cache_holds_the_same_as_another(window: int | None) -> None:
    """Equal results for rows of different lengths, pieces of several tokens, truncation, placed and released rows."""
    caches = [Cache(2, 40, calls=1, slack=3, static=static) for static in (False, True)]
    for cache in caches:
        feed(cache, tokens(2, 0, 5), window=window, lengths=[5, 2])
        feed_one(cache, [0, 1], window)
        feed(cache, tokens(2, 6, 3) + 0.5, window=window, lengths=[3, 2])
        cache.truncate(torch.tensor([8, 3]))
        other = Cache(1, 4, calls=1, slack=3, static=cache.extent.static)
        feed(other, tokens(1, 0, 4) + 1000, window=window)
        cache.overwrite(torch.tensor([0]), other)
        cache.set_lengths([4, 3])
    first, second = (feed_one(cache, [5, 6], window) for cache in caches)
    for row, n in ((0, 4), (1, 3)):
        visible = range(0 if window is None else n - window + 1, n + 1)
        assert [first[row][t] for t in visible] == [second[row][t] for t in visible]
    for cache in caches:
        cache.retire([(1, 0)], 1)
        cache.set_lengths([4])
    first, second = (feed_one(cache, [7], window)[0] for cache in caches)
    assert [first[t] for t in (2, 3, 4)] == [second[t] for t in (2, 3, 4)] == [-2, -7, -8]


def test_calls_and_names_have_separate_buffers() -> None:
    cache = Cache(1, 9, calls=2)
    assert len(cache) == 2
    cache.begin(1)
    for number, (call, name) in enumerate([(0, "x"), (0, "y"), (1, "x")]):
        cache[call].append(name, torch.full((1, 1, 1), float(number)))
    cache.commit()
    cache.begin(1)
    like = torch.zeros(1, 1, 1)
    assert [cache[call].get_last(name, like).item() for call, name in [(0, "x"), (0, "y"), (1, "x")]] == [0, 1, 2]


def test_an_empty_slot_holds_zeros() -> None:
    """The weight of an empty slot is zero, and zero times old contents may be NaN."""
    cache = Cache(1, 9, calls=1)
    feed(cache, tokens(1, 1, 2))
    assert cache[0]._buffers["x"][0, :, 0].tolist() == [1, 2, 0, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(("batch", "capacity"), [(0, 5), (3, 0)])
def test_refuses_an_empty_cache(batch: int, capacity: int) -> None:
    message = f"a cache needs at least one row and one token, not batch {batch}, capacity {capacity}"
    with pytest.raises(ValueError, match=message):
        Cache(batch, capacity, calls=1)


def test_refuses_more_tokens_than_it_holds() -> None:
    cache = Cache(1, 5, calls=1)
    feed(cache, tokens(1, 0, 3))
    message = (
        "the cache holds 5 tokens a row, 3 are taken and 3 more were given; use new_cache(..., capacity=6) or more"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        cache.begin(3)
    assert feed(cache, tokens(1, 3, 2))[0] == {t: t for t in range(5)}


@pytest.mark.parametrize(
    ("lengths", "rows", "said"),
    [
        (
            [5, 2],
            2,
            r"lengths is \[5, 2\], but 2 rows of 3 tokens were given; it must be a tensor of one whole number from 0",
        ),
        ([-1, 2], 2, r"lengths is \[-1, 2\], but 2 rows of 3 tokens"),
        ([3], 2, r"lengths is \[3\], but 2 rows"),
        (
            None,
            3,
            r"the cache has 2 row\(s\), but 3 were given; use new_cache\(3, \.\.\.\), or repeat or select its rows",
        ),
    ],
)
def test_cases_p5_refuses_tokens_of_other_lengths_or_rows(lengths: list[int] | None, rows: int, said: str) -> None:
    cache = Cache(2, 9, calls=1)
    feed(cache, tokens(2, 0, 4), lengths=[4, 0])
    with pytest.raises(ValueError, match=said):
        cache.begin(3, None if lengths is None else torch.tensor(lengths), rows=rows)
    assert feed(cache, tokens(2, 4, 1))[0] == {t: t for t in range(5)}, "nothing changed"


def test_cases_s17_a_cache_dies_with_its_last_user() -> None:
    """A cache holds its calls, which do not hold it: otherwise its memory waits for Python's collector."""
    cache = Cache(2, 9, calls=3)
    feed(cache, tokens(2, 0, 4))
    call, watched, copied = cache[1], weakref.ref(cache), copy.deepcopy(cache)
    assert copied[0].extent is copied.extent is not cache.extent
    gc.disable()
    try:
        del cache
        assert watched() is None and call.extent.bound == 4
    finally:
        gc.enable()


@pytest.mark.parametrize(("asked", "holds"), [(1, 32), (32, 32), (33, 64), (300, 512), (512, 512)])
def test_on_a_gpu_a_static_cache_grows_by_powers_of_two(asked: int, holds: int) -> None:
    cache = Cache(1, asked, calls=1, device=torch.device("meta"), static=True)
    assert cache.capacity == holds + 32
    cache.begin(1)
    cache.commit()
    cache.begin(max(1, asked - 1))
    assert len(cache.extent.slots) == holds


def test_tensors_that_steps_write_or_read_are_marked_as_staying() -> None:
    cache = Cache(2, 9, calls=1, static=True)
    context = FixedContext(torch.zeros(2, 3, 4), torch.zeros(2, 3, 5), torch.ones(2, 3, dtype=torch.bool))
    cache[0].fixed["context"] = context
    feed(cache, tokens(2, 0, 3))
    cache.begin(1)
    cache.mark_for_compiler()
    marked = [*cache[0]._buffers.values(), context.keys, context.values, context.mask]
    assert len(marked) == 4 and all(hasattr(t, "_dynamo_static_input_type") for t in marked)
    assert not any(
        hasattr(t, "_dynamo_static_input_type") for t in (cache.lengths, cache.extent.slots, cache.extent.written)
    )
    # Selected rows are new tensors.
    cache.select(torch.tensor([1, 0]))
    assert not any(hasattr(t, "_dynamo_static_input_type") for t in cache[0]._buffers.values())
    cache.mark_for_compiler()
    assert all(hasattr(t, "_dynamo_static_input_type") for t in cache[0]._buffers.values())


def test_contexts_of_rows_that_are_all_overwritten_have_the_width_of_the_new_ones() -> None:
    cache, other = Cache(2, 9, calls=1), Cache(2, 9, calls=1)
    for each, width in ((cache, 7), (other, 3)):
        vectors = torch.arange(2.0)[:, None, None] + torch.zeros(2, width, 4)
        each[0].fixed["context"] = FixedContext(vectors, vectors, None)
        feed(each, tokens(2, 0, 3))
    cache.overwrite(torch.tensor([1, 0]), other)
    found = cache[0].fixed["context"]
    assert found.keys.shape == (2, 3, 4) and found.mask is None
    assert found.keys[:, 0, 0].tolist() == [1, 0], "row 0 of the other cache is row 1 here"
