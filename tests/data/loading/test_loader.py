"""Loaders for Lightning."""

import os
import pickle
import threading
from itertools import count, islice
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from lightning_xt.data.loading import loader
from lightning_xt.data.loading.loader import AHEAD, Loader, prefetch
from lightning_xt.data.text.text_files import TextFiles


def test_a_loader_has_a_length_only_if_its_batches_end():
    assert len(Loader([1, 2, 3])) == 3 and list(Loader([1, 2])) == [1, 2]
    with pytest.raises(TypeError, match="endless"):
        len(Loader(iter([])))


def test_a_loader_gives_its_batches_again():
    batches = Loader([1, 2])
    first, second = iter(batches), iter(batches)
    assert [next(first), next(second), next(first), next(second)] == [1, 1, 2, 2]
    assert next(first, None) is None
    assert list(pickle.loads(pickle.dumps(batches))) == [1, 2]


def test_only_the_time_until_a_batch_is_there_is_waiting(monkeypatch):
    clock = count()
    monkeypatch.setattr(loader.time, "perf_counter", lambda: next(clock))

    def slow():
        for seconds in (2, 5):
            for _ in range(seconds):
                next(clock)
            yield seconds

    batches = Loader(slow())
    stream = iter(batches)
    assert batches.waited == 0
    # The clock counts its readings: each wait is one longer than the readings in it.
    assert (next(stream), batches.waited) == (2, 3)
    for _ in range(100):
        next(clock)
    assert (next(stream), batches.waited) == (5, 9)


class Numbers(Dataset):
    def __len__(self):
        return 7

    def __getitem__(self, number):
        if number == 6:
            raise ValueError("no such number")
        return number


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_a_data_loader_are_prepared_while_others_are_used(workers):
    batches = Loader(DataLoader(Numbers(), batch_size=1, num_workers=workers, persistent_workers=workers > 0))
    for _ in range(3):
        stream = iter(batches)
        assert [next(stream).item() for _ in range(5)] == [0, 1, 2, 3, 4]
        assert len(threads()) == 1
        # Some batches are prepared, and one may be on its way.
        stream.close()
        assert threads() == []


def test_an_error_of_a_batch_comes_when_its_turn_does():
    stream = iter(Loader(DataLoader(Numbers(), batch_size=1)))
    assert [next(stream).item() for _ in range(6)] == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="no such number"):
        next(stream)
    assert threads() == []


def test_no_more_batches_than_asked_for_are_taken_ahead():
    taken = []
    stream = prefetch(taken.append(number) or number for number in count())
    assert next(stream) == 0
    stream.close()
    assert taken == list(range(len(taken)))
    assert len(taken) <= 1 + AHEAD
    assert list(prefetch([])) == []
    assert list(prefetch(range(20))) == list(range(20))


def anonymous_megabytes():
    """Return the anonymous memory of this process and its children."""
    processes = ["self", *Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    lines = [line for process in processes for line in Path(f"/proc/{process}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_large_file_takes_no_memory(workers, tmp_path):
    held = []
    for megabytes in (1, 256):
        file = tmp_path / str(megabytes)
        with file.open("wb") as sparse:
            sparse.truncate(megabytes << 20)
        data = TextFiles(str(file), seq_len=256, batch_size=64, num_workers=workers)
        batches = data.train_dataloader()
        # Enough windows to reach every 16 kB of the file.
        assert sum(len(batch) for batch in islice(batches, 250)) == 16_000
        held.append(anonymous_megabytes())
        # The workers of the smaller file must not count for the larger file.
        del batches
    assert held[1] - held[0] < 30
