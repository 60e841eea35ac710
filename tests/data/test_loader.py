"""What Lightning is handed."""

import pickle
from itertools import count

import pytest

from lightning_xt.data import loader
from lightning_xt.data.loader import Loader


def test_a_loader_has_a_length_only_if_its_batches_end():
    assert len(Loader([1, 2, 3])) == 3 and list(Loader([1, 2])) == [1, 2]
    with pytest.raises(TypeError, match="no end"):
        len(Loader(iter([])))


def test_a_loader_gives_its_batches_anew():
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
    # The clock counts its readings: each wait is one longer than what happens in it.
    assert (next(stream), batches.waited) == (2, 3)
    for _ in range(100):
        next(clock)
    assert (next(stream), batches.waited) == (5, 9)
