"""Shuffled windows: every token once an epoch, by the seed and the number alone, also after a resume."""

import pickle

import numpy as np
import pytest
import torch

from lightning_xt.data.text.shuffled_windows import ShuffledWindows
from lightning_xt.data.text.text_files import TextFiles


@pytest.mark.parametrize(("length", "seq_len"), [(101, 5), (100, 5), (11, 5), (9, 5), (6, 5), (23, 1), (2, 1)])
def test_every_token_is_predicted_once_an_epoch(length, seq_len):
    tokens = (np.arange(length) * 89 % 251 + 1).astype(np.uint8)
    windows = ShuffledWindows(tokens, seq_len, seed=3)
    shifts = set()
    for epoch in range(40):
        samples = range(epoch * windows.per_epoch, (epoch + 1) * windows.per_epoch)
        batch, offsets = windows.__getitems__(samples), windows.offsets(samples)
        assert batch.dtype == torch.int64 and batch.shape == (windows.per_epoch, seq_len + 1)
        times = np.zeros(length, dtype=int)
        for row, offset in zip(batch, offsets, strict=True):
            assert row.tolist() == tokens[offset : offset + seq_len + 1].tolist()
            times[offset + 1 : offset + 1 + seq_len] += 1
        predicted = times.nonzero()[0]
        assert times.max() == 1 and len(predicted) == windows.per_epoch * seq_len
        # In one piece, and more would not fit at its offset but for one window.
        assert predicted[-1] - predicted[0] + 1 == len(predicted) and length - 1 - len(predicted) < 2 * seq_len
        shifts.add(int(offsets.min()))
    assert shifts == set(range(min(seq_len, length - windows.per_epoch * seq_len)))


def test_epochs_differ_and_follow_from_the_seed_and_the_number():
    tokens = np.arange(1000, dtype=np.uint16)
    windows = ShuffledWindows(tokens, 4, seed=1)
    size = windows.per_epoch
    whole = windows.offsets(range(3 * size)).tolist()
    epochs = [[offset // 4 for offset in whole[first : first + size]] for first in (0, size, 2 * size)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(epochs[2])
    # Of 249 windows about one stays in its place.
    assert all(
        sum(a == b for a, b in zip(one, other, strict=True)) < 10 for one in epochs for other in epochs if one != other
    )
    assert epochs[0] != epochs[1] != epochs[2]
    # In any order, from any process, across two epochs.
    copied, numbers = pickle.loads(pickle.dumps(windows)), [2 * size + 5, 3, size - 1, size]
    assert copied.offsets(numbers).tolist() == [whole[number] for number in numbers]
    assert ShuffledWindows(tokens, 4, seed=1).offsets(range(9)).tolist() == whole[:9]
    assert ShuffledWindows(tokens, 4, seed=2).offsets(range(9)).tolist() != whole[:9]


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_resumes_in_an_epoch(tmp_path, workers):
    (tmp_path / "text.txt").write_text("".join(f"{number:03}" for number in range(1000)))

    def read(count, seen):
        data = TextFiles(str(tmp_path / "text.txt"), seq_len=8, batch_size=5, order="shuffled", num_workers=workers)
        data.prepare_data()
        data.setup("fit")
        data.load_state_dict({"samples_seen": seen})
        batches = iter(data.train_dataloader())
        return torch.cat([next(batches) for _ in range(count)])

    whole, later = read(200, 0), read(100, 500)
    assert torch.equal(whole[500:], later)
    assert len({tuple(row) for row in whole.tolist()}) > 600
