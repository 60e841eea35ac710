"""Token batches: every pair once an epoch, within the budget, with little padding, on any number of processes."""

from itertools import islice

import numpy as np
import pytest

from lightning_xt.data.pairs.token_batches import LEAST_WIDTH, TokenBatches, cut_by_budget, cut_by_count

RANDOM = np.random.default_rng(0)
SOURCE = RANDOM.integers(4, 40, 997)
LENGTHS = np.stack([SOURCE, np.maximum(2, SOURCE + RANDOM.integers(-4, 5, 997))], axis=1)


def take(count, **options):
    return [batch.tolist() for batch in islice(TokenBatches(LENGTHS, **options), count)]


@pytest.mark.parametrize(("max_tokens", "world"), [(44, 1), (300, 1), (300, 3), (100_000, 2), (61, 7)])
def test_every_pair_is_in_an_epoch_once_and_fits(max_tokens, world):
    batches = TokenBatches(LENGTHS, max_tokens, seed=3, world=world)
    for epoch in range(3):
        parts = batches.epoch(epoch)
        assert sorted(np.concatenate(parts)) == list(range(997))
        assert all(len(pairs) * LENGTHS[pairs].max() <= max_tokens * world for pairs in parts)
        assert all(len(pairs) >= world for pairs in parts)


def test_little_is_padded():
    parts = TokenBatches(LENGTHS, 512).epoch(0)
    padded = sum(len(pairs) * LENGTHS[pairs].max(axis=0).sum() for pairs in parts)
    assert 1 - LENGTHS.sum() / padded < 0.07


def test_epochs_differ_and_follow_from_the_seed():
    batches = TokenBatches(LENGTHS, 300, seed=1)
    first, second = ([part.tolist() for part in batches.epoch(number)] for number in range(2))
    # The batches too, not only their order.
    assert len(first) == len(second) and {tuple(sorted(part)) for part in first} != {tuple(sorted(p)) for p in second}
    assert [part.tolist() for part in TokenBatches(LENGTHS, 300, seed=1).epoch(0)] == first
    assert [part.tolist() for part in TokenBatches(LENGTHS, 300, seed=2).epoch(0)] != first
    # Long and short pairs do not alternate.
    assert first != sorted(first, key=len) and first != sorted(first, key=len, reverse=True)


def test_the_stream_is_the_epochs_one_after_the_other():
    batches = TokenBatches(LENGTHS, 300, seed=1)
    whole = [part.tolist() for number in range(3) for part in batches.epoch(number)]
    assert take(len(whole), max_tokens=300, seed=1) == whole


@pytest.mark.parametrize("world", [1, 2, 3])
def test_batches_resume_from_every_position(world):
    whole = take(150, max_tokens=600 // world, seed=5, world=world)
    plan = TokenBatches(LENGTHS, 600 // world, seed=5, world=world)
    sizes = [len(part) for number in range(4) for part in plan.epoch(number)]
    for done in (0, 1, 10, 49, 50, 51, 52, 53, 54, 55, 56, 57, 100):
        position = plan.samples_after(0, done)
        assert position == sum(sizes[:done])
        assert take(20, max_tokens=600 // world, seed=5, world=world, start=lambda at=position: at) == whole[done:][:20]
        # Two parts equal one.
        assert plan.samples_after(position, 13) == sum(sizes[: done + 13])


def test_processes_share_the_batches_of_one():
    alone = take(120, max_tokens=600, seed=5)
    for world in (2, 3):
        ranks = [take(120, max_tokens=600 // world, seed=5, rank=rank, world=world) for rank in range(world)]
        for pairs, *shares in zip(alone, *ranks, strict=True):
            assert shares == [pairs[rank::world] for rank in range(world)]
            assert all(shares)


def test_a_position_within_a_batch_resumes_with_a_batch_after_it():
    """A position within a batch occurs after a resume with another budget."""
    plan = TokenBatches(LENGTHS, 300, seed=5)
    sizes = [len(part) for part in plan.epoch(0)]
    assert plan.samples_after(1, 1) == sizes[0] + sizes[1]
    assert plan.samples_after(1, 0) == 1
    assert plan.samples_after(996, 1) == 997 + len(plan.epoch(1)[0])
    inside = next(islice(TokenBatches(LENGTHS, 300, seed=5, start=lambda: 996), 1))
    assert inside.tolist() == plan.epoch(1)[0].tolist()


def test_the_last_batch_shares_with_the_one_before():
    # Room for six, and one pair too many, which two processes could not split.
    assert sorted(len(part) for part in TokenBatches(np.full((7, 2), 10), 30, world=2).epoch(0)) == [3, 4]
    assert sorted(len(part) for part in TokenBatches(np.full((7, 2), 10), 60).epoch(0)) == [3, 4]
    # The batch before is full.
    assert [len(part) for part in TokenBatches(np.full((3, 2), 10), 10, world=2).epoch(0)] == [3]
    assert [len(part) for part in TokenBatches(np.full((2, 2), 10), 30, world=2).epoch(0)] == [2]


def test_evaluation_by_count():
    lengths = np.asarray([5, 1, 3, 3, 2])
    assert [part.tolist() for part in cut_by_count(lengths, 2)] == [[1, 4], [2, 3], [0]]
    assert cut_by_count(np.zeros(0, dtype=np.int64), 2) == []


def test_evaluation_by_budget():
    wide = LEAST_WIDTH
    lengths = np.asarray([[2 * wide, 3], [wide, 3], [1, 1], [3, 2 * wide], [2, 2], [9 * wide, 2]])
    assert [part.tolist() for part in cut_by_budget(lengths, 3 * wide)] == [[2, 4], [3], [1], [0], [5]]
    assert [part.tolist() for part in cut_by_budget(lengths[:, 0], 3 * wide)] == [[2, 4, 3], [1], [0], [5]]
    assert cut_by_budget(np.zeros(0, dtype=np.int64), 2) == []
