"""The cache against lists of numbers: what is written where, what comes back, and what is refused."""

import re

import pytest
import torch
from torch import Tensor

from lightning_xt.core.cache import Cache
from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.fixed_context import FixedContext

# What is remembered of a token is its number: row r's token t is 100 r + t.


def tokens(rows: int, start: int, n: int) -> Tensor:
    """(rows, n, 1) numbers of tokens start, start + 1, ..."""
    return (100 * torch.arange(rows)[:, None, None] + torch.arange(start, start + n)[None, :, None]).float()


def feed(cache: Cache, new: Tensor, window: int | None = None, lengths: list[int] | None = None) -> dict[int, Tensor]:
    """Appends new tokens, and gives for each row the numbers remembered, by position; what nobody sees is left out."""
    cache.begin(new.shape[1], None if lengths is None else torch.tensor(lengths))
    keys = cache[0].keys_at(window)
    out = cache[0].append("x", new, window=window).squeeze(-1)
    assert keys.shape[-1] == out.shape[-1]
    queries = cache.positions().expand(new.shape[0], -1)
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
    assert cache.lengths.tolist() == [7, 7] and cache.bound == 7 and cache.uniform


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
    assert cache.lengths.tolist() == [4, 2] and not cache.uniform
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


def test_a_window_wider_than_the_capacity_is_none() -> None:
    cache = Cache(1, 5, calls=1, slack=2)
    assert (cache.size(None), cache.size(2), cache.size(3), cache.size(100)) == (5, 4, 5, 5)


def test_last_is_the_token_right_before() -> None:
    cache = Cache(2, 9, calls=1, slack=2)
    call: CallCache = cache[0]
    like = tokens(2, 0, 1)
    cache.begin(3, torch.tensor([3, 1]))
    assert call.last("x", like).flatten().tolist() == [0, 0]
    call.append("x", tokens(2, 0, 3), window=1)
    cache.commit()
    cache.begin(1)
    assert call.last("x", like).flatten().tolist() == [2, 100]
    call.append("x", torch.tensor([[[3.0]], [[101.0]]]), window=1)
    cache.commit()
    cache.begin(1)
    assert call.last("x", like).flatten().tolist() == [3, 101]
    assert call.last("never appended", like).flatten().tolist() == [0, 0]


def test_last_is_zero_for_a_row_taken_back_to_its_start() -> None:
    cache = Cache(2, 9, calls=1)
    feed(cache, tokens(2, 1, 9))
    cache.truncate(torch.tensor([0, 2]))
    assert cache[0].last("x", tokens(2, 0, 1)).flatten().tolist() == [0, 102]


def test_truncate_forgets_from_a_position_on() -> None:
    cache = Cache(2, 9, calls=1)
    feed(cache, tokens(2, 0, 6))
    cache.truncate(4)
    assert cache.lengths.tolist() == [4, 4] and cache.bound == 4 and cache.uniform
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
    message = "cannot take back 5 tokens: a window keeps 3 beyond its width; ask for new_cache(..., slack=5)"
    with pytest.raises(ValueError, match=re.escape(message)):
        cache.truncate(length)
    assert cache.lengths.tolist() == [11]


def test_slack_is_the_bound_itself() -> None:
    cache = Cache(1, 20, calls=1, slack=3)
    for t in range(11):
        feed(cache, tokens(1, t, 1), window=4)
    with pytest.raises(ValueError, match="cannot take back 4 tokens: a window keeps 3"):
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


def test_calls_and_names_have_memories_of_their_own() -> None:
    cache = Cache(1, 9, calls=2)
    assert len(cache) == 2
    cache.begin(1)
    for number, (call, name) in enumerate([(0, "x"), (0, "y"), (1, "x")]):
        cache[call].append(name, torch.full((1, 1, 1), float(number)))
    cache.commit()
    cache.begin(1)
    like = torch.zeros(1, 1, 1)
    assert [cache[call].last(name, like).item() for call, name in [(0, "x"), (0, "y"), (1, "x")]] == [0, 1, 2]


def test_an_empty_slot_holds_zeros() -> None:
    """Its weight is zero, and zero times whatever memory held before may be NaN."""
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
        "the cache holds 5 tokens a row, 3 are taken and 3 more were given; ask for new_cache(..., capacity=6) or more"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        cache.begin(3)
    assert feed(cache, tokens(1, 3, 2))[0] == {t: t for t in range(5)}
