"""Windows: counts by hand with prime sizes, and offsets that need no state."""

import pickle

import numpy as np
import pytest
import torch

from lightning_xt.data.loading.random_numbers import split_mix_64
from lightning_xt.data.text.mapped_tokens import MappedTokens
from lightning_xt.data.text.windows import EvaluationWindows, TrainingWindows


def count_naively(tokens, seq_len, stride, batch_size):
    """Count window by window how often each token is predicted and scored, and find the least context of each."""
    windows = EvaluationWindows(tokens, seq_len, stride)
    times = np.zeros(len(tokens), dtype=int)
    context = np.full(len(tokens), -1)
    for first in range(0, len(windows), batch_size):
        numbers = list(range(first, min(first + batch_size, len(windows))))
        batch = windows.__getitems__(numbers)
        assert batch.tokens.dtype == torch.int64 and batch.scored.dtype == torch.bool
        assert batch.tokens.shape == (len(numbers), seq_len + 1) and batch.scored.shape == (len(numbers), seq_len)
        for number, row, scored in zip(numbers, batch.tokens, batch.scored, strict=True):
            for t in scored.nonzero().flatten().tolist():
                target = number * windows.stride + t + 1
                assert row[: t + 2].tolist() == tokens[target - t - 1 : target + 1].tolist()
                times[target] += 1
                context[target] = t + 1
    return times, context


@pytest.mark.parametrize("batch_size", [1, 7])
@pytest.mark.parametrize("stride", [None, 1, 2, 3, 5])
@pytest.mark.parametrize("length", [2, 3, 5, 6, 7, 11, 12, 13, 23, 101])
def test_every_token_but_the_first_is_predicted_once(length, stride, batch_size):
    tokens = (np.arange(length) * 89 % 251 + 1).astype(np.uint8)
    times, context = count_naively(tokens, 5, stride, batch_size)
    assert times.tolist() == [0] + [1] * (length - 1)
    # Past the first window, a token has at least seq_len - stride + 1 tokens before it.
    assert (context[6:] >= 5 - (stride or 5) + 1).all()


def test_the_drawing_in_the_docstring():
    windows = EvaluationWindows(np.arange(10, dtype=np.uint8), seq_len=4, stride=2)
    assert len(windows) == 4
    batch = windows.__getitems__([0, 1, 2, 3])
    assert batch.tokens.tolist() == [[0, 1, 2, 3, 4], [2, 3, 4, 5, 6], [4, 5, 6, 7, 8], [6, 7, 8, 9, 0]]
    assert batch.scored.int().tolist() == [[1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 0]]
    alone = windows[3]
    assert torch.equal(alone.tokens, batch.tokens[3:]) and torch.equal(alone.scored, batch.scored[3:])


def test_the_hash_is_the_published_generator():
    # The first outputs of SplitMix64 from state 0, as in the reference code; 0 is where seed 0 starts.
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert split_mix_64(0, [0, 1, 2]).tolist() == expected
    assert split_mix_64(0, [2]).tolist() == expected[2:]


def test_a_sample_depends_on_the_seed_and_its_number_alone():
    tokens = np.arange(251, dtype=np.uint8)
    windows = TrainingWindows(tokens, seq_len=7, seed=3)
    batch = windows.__getitems__([5, 2**40, 5, 11])
    assert batch.shape == (4, 8) and batch.dtype == torch.int64
    assert torch.equal(batch[0], batch[2]) and torch.equal(batch[3], windows[11])
    assert torch.equal(batch[1], TrainingWindows(tokens, seq_len=7, seed=3)[2**40])
    assert (batch[:, 1:] - batch[:, :-1] == 1).all()
    other = TrainingWindows(tokens, seq_len=7, seed=4).offsets(range(50))
    assert (other != windows.offsets(range(50))).any()
    TrainingWindows(tokens, seq_len=7, seed=2**64 - 1).offsets([2**64 - 1])


@pytest.mark.parametrize("seed", [0, 1])
def test_every_offset_is_equally_likely(seed):
    windows = TrainingWindows(np.zeros(11 + 7, dtype=np.uint8), seq_len=7, seed=seed)
    counts = np.bincount(windows.offsets(range(11_000)), minlength=11)
    assert len(counts) == 11  # offsets 0 .. 10: the last window ends with the last token
    # Chi-squared with 10 degrees of freedom exceeds 29.6 once in a thousand.
    assert ((counts - 1000) ** 2 / 1000).sum() < 29.6


def test_the_shortest_text_has_one_window():
    tokens = np.arange(8, dtype=np.uint8)
    assert TrainingWindows(tokens, seq_len=7)[123].tolist() == list(range(8))


def test_mapped_tokens_read_a_range_and_pickle_without_it(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(bytes(range(256)) * 1000)
    whole, part = MappedTokens(path), MappedTokens(path, 13, 113)
    assert len(whole) == 256_000 and len(part) == 100
    assert part[np.array([[0, 1], [99, 5]])].tolist() == [[13, 14], [112, 18]]
    assert whole[255:257].tolist() == [255, 0]
    pickled = pickle.dumps(whole)
    assert len(pickled) < 1000
    assert pickle.loads(pickled)[:3].tolist() == [0, 1, 2]


@pytest.mark.parametrize("length", [8, 9, 11, 20])
@pytest.mark.parametrize("stride", [1, 3, 7, None])
def test_a_window_past_the_last_counts_nothing(length, stride):
    windows = EvaluationWindows(np.ones(length, dtype=np.uint8), seq_len=7, stride=stride)
    batch = windows.__getitems__([len(windows) - 1, len(windows), len(windows) + 5])
    assert batch.tokens.shape == (3, 8)
    assert batch.scored.any(dim=1).tolist() == [True, False, False]
