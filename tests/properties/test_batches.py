"""Samplers and batches: every sample once, on any number of processes, resumed at any step."""

from itertools import islice

import numpy as np
from hypothesis import strategies as st
from properties.holds import holds

from lightning_xt.data.loading.random_numbers import split_mix_64
from lightning_xt.data.loading.sampler import CounterBatchSampler, batch_windows_once
from lightning_xt.data.pairs.token_batches import LEAST_WIDTH, TokenBatches, cut_by_budget, cut_by_count
from lightning_xt.data.text.windows import EvaluationWindows, TrainingWindows

SEEDS = st.integers(0, 2**64 - 1)
WORLDS = st.integers(1, 5)
LENGTHS = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=5, max_size=40).map(np.asarray)


@holds(start=st.integers(0, 10**12), size=st.integers(1, 9), world=WORLDS)
def test_samples_are_counted_without_gaps(start: int, size: int, world: int) -> None:
    shares = [CounterBatchSampler(size, start=lambda: start, rank=rank, world=world) for rank in range(world)]
    taken = [list(islice(share, 3)) for share in shares]
    flat = [sample for batch in range(3) for rank in range(world) for sample in taken[rank][batch]]
    assert flat == list(range(start, start + 3 * size * world))


@holds(windows=st.integers(1, 60), size=st.integers(1, 9), world=WORLDS)
def test_every_window_is_measured_once(windows: int, size: int, world: int) -> None:
    shares = [list(batch_windows_once(windows, size, rank=rank, world=world)) for rank in range(world)]
    taken = sorted(window for share in shares for batch in share for window in batch)
    assert [window for window in taken if window < windows] == list(range(windows))
    assert len(set(taken)) == len(taken)
    assert len({tuple(map(len, share)) for share in shares}) == 1


@holds(count=st.integers(2, 60), seq_len=st.integers(1, 12), part=st.integers(0, 100), size=st.integers(1, 5))
def test_every_token_but_the_first_is_predicted_once(count: int, seq_len: int, part: int, size: int) -> None:
    tokens = np.arange(count, dtype=np.uint8)
    windows = EvaluationWindows(tokens, seq_len, 1 + part % seq_len)
    counted = []
    for first in range(0, len(windows) + 2, size):
        batch = windows.__getitems__(range(first, first + size))
        counted += batch.tokens[:, 1:][batch.scored].tolist()
    assert sorted(counted) == list(range(1, count))


@holds(
    count=st.integers(2, 60), seq_len=st.integers(1, 59), seed=SEEDS, samples=st.lists(SEEDS, min_size=1, max_size=9)
)
def test_windows_follow_from_seed_and_number_alone(count: int, seq_len: int, seed: int, samples: list[int]) -> None:
    seq_len = 1 + seq_len % (count - 1)
    windows = TrainingWindows(np.arange(count, dtype=np.uint8), seq_len, seed)
    batch = windows.__getitems__(samples)
    for row, sample in zip(batch, samples, strict=True):
        first = int(row[0])
        assert row.tolist() == list(range(first, first + seq_len + 1))
        assert windows[sample].tolist() == row.tolist()


def split_mix(seed: int, number: int) -> int:
    """Compute SplitMix64 in plain Python, as its authors write it."""

    def mix(z: int) -> int:
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
        return z ^ (z >> 31)

    return mix((mix(seed) + (number + 1) * 0x9E3779B97F4A7C15) % 2**64)


@holds(seed=SEEDS, numbers=st.lists(SEEDS, min_size=1, max_size=5))
def test_random_bits_are_those_of_split_mix(seed: int, numbers: list[int]) -> None:
    assert split_mix_64(seed, np.asarray(numbers, dtype=np.uint64)).tolist() == [split_mix(seed, n) for n in numbers]


@holds(lengths=LENGTHS, budget=st.integers(20, 90), seed=SEEDS, world=WORLDS, epoch=st.integers(0, 3))
def test_an_epoch_takes_every_pair_once(lengths: np.ndarray, budget: int, seed: int, world: int, epoch: int) -> None:
    shares = [TokenBatches(lengths, budget, seed=seed, rank=rank, world=world) for rank in range(world)]
    whole = shares[0].epoch(epoch)
    assert sorted(np.concatenate(whole).tolist()) == list(range(len(lengths)))
    assert all(len(batch) >= world for batch in whole)
    for share in shares:
        for batch, pairs in zip(whole, share.epoch(epoch), strict=True):
            assert batch.tolist() == pairs.tolist()
    # One process with the budgets of all trains on the same batches.
    alone = TokenBatches(lengths, budget * world, seed=seed)
    if world == 1 or len(alone.bounds) == len(shares[0].bounds):
        assert [sorted(each.tolist()) for each in alone.epoch(epoch)] == [sorted(each.tolist()) for each in whole]


@holds(lengths=LENGTHS, budget=st.integers(20, 90), seed=SEEDS, world=WORLDS, done=st.integers(0, 40))
def test_a_run_resumes_with_the_batches_that_follow(
    lengths: np.ndarray, budget: int, seed: int, world: int, done: int
) -> None:
    for rank in range(world):
        batches = TokenBatches(lengths, budget, seed=seed, rank=rank, world=world)
        expected = [each.tolist() for each in islice(batches, done, done + 4)]
        position = batches.samples_after(0, done)
        later = TokenBatches(lengths, budget, seed=seed, start=lambda at=position: at, rank=rank, world=world)
        assert [each.tolist() for each in islice(later, 4)] == expected
        assert batches.samples_after(0, done + 3) == batches.samples_after(position, 3)


@holds(lengths=LENGTHS, budget=st.integers(1, 200), size=st.integers(1, 9))
def test_evaluation_takes_every_sequence_once(lengths: np.ndarray, budget: int, size: int) -> None:
    for batches in (cut_by_budget(lengths, budget), cut_by_count(lengths, size), cut_by_budget(lengths[:, 0], budget)):
        assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for batch in cut_by_budget(lengths, budget):
        assert len(batch) == 1 or len(batch) * max(LEAST_WIDTH, int(lengths[batch].max())) <= budget
    assert all(len(batch) <= size for batch in cut_by_count(lengths, size))
