"""Samples of each process."""

from itertools import chain, islice

import pytest

from lightning_xt.data.loading.sampler import CounterBatchSampler, batch_windows_once


def first_batches(count, **kwargs):
    return list(islice(CounterBatchSampler(**kwargs), count))


def test_the_ranks_split_the_batches_of_one_process():
    alone = first_batches(5, batch_size=6, start=lambda: 7)
    assert alone[0] == [7, 8, 9, 10, 11, 12] and alone[4][-1] == 7 + 5 * 6 - 1
    ranks = [first_batches(5, batch_size=2, start=lambda: 7, rank=rank, world=3) for rank in range(3)]
    assert [list(chain(*parts)) for parts in zip(*ranks, strict=True)] == alone


def test_the_start_is_asked_at_every_iteration():
    position = 0
    sampler = CounterBatchSampler(3, start=lambda: position)
    assert next(iter(sampler)) == [0, 1, 2]
    position = 9
    assert next(iter(sampler)) == [9, 10, 11]


@pytest.mark.parametrize("windows", [1, 2, 7, 13])
def test_evaluation_is_shared_without_duplicates(windows):
    shares = [list(chain(*batch_windows_once(windows, 2, rank=rank, world=3))) for rank in range(3)]
    assert [[n for n in share if n < windows] for share in shares] == [list(range(r, windows, 3)) for r in range(3)]
    assert sorted(chain(*shares))[:windows] == list(range(windows))
    assert len({len(share) for share in shares}) == 1
    assert len(shares[0]) == -(-windows // 3)
