"""The contract of a denoiser: it corrupts a sequence, which a model learns to restore."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_xt.data.denoisers.draws import Draws
from lightning_xt.system.option_checks import check_option

Ids = NDArray[np.int64]


class Corrupted(NamedTuple):
    """A corrupted sequence and its target, without start, end and mode.

    Args:
        source: ids that the model reads.
        target: ids that it must write.
    """

    source: Ids
    target: Ids


class Denoiser(ABC):
    """Corruption of sequences of ids, of which a model restores what is hidden.

    Args:
        mode: name of the mode, whose token before each source says which corruption it has. None = no token.
        weight: how often this denoiser is chosen, relative to the others.
    """

    def __init__(self, *, mode: str | None = None, weight: float = 1.0) -> None:
        check_option(self.name, "weight", weight, above=0)
        if mode is not None and (not mode or set(mode) & set("[]<>")):
            raise ValueError(f"{self.name} has mode {mode!r}; give it a name without brackets, such as R")
        self.mode, self.weight = mode, weight

    @property
    def name(self) -> str:
        """Name in messages."""
        return f"--data.denoisers: {type(self).__name__}"

    @abstractmethod
    def corrupt(self, ids: Ids, sentinels: Ids, draws: Draws) -> Corrupted:
        """Corrupt a sequence of at least one id.

        Args:
            ids: the sequence.
            sentinels: ids that stand for hidden spans, at least `count_sentinels`.
            draws: random numbers.
        """

    @abstractmethod
    def count_sentinels(self, n: int) -> int:
        """Count the sentinels that a sequence of n ids needs at most."""

    @abstractmethod
    def measure(self, n: int) -> tuple[int, int]:
        """Return the most ids of the source and of the target of a sequence of up to n ids."""


DenoiserFactory = Callable[[], Denoiser]


class MarkedSpans:
    """Sequence of ids with a mark in front of each of its spans.

    Args:
        ids: the sequence.
        starts: index at which each span begins, in ascending order.
        lengths: number of ids of each span; 0 is a mark alone.
        marks: the mark of each span.
    """

    def __init__(self, ids: Ids, starts: Ids, lengths: Ids, marks: Ids) -> None:
        self._is_mark = np.zeros(len(ids) + len(starts), dtype=np.bool_)
        self._is_mark[starts + np.arange(len(starts))] = True
        self._ids = np.empty(len(self._is_mark), dtype=np.int64)
        self._ids[self._is_mark] = marks
        self._ids[~self._is_mark] = ids
        changes = np.zeros(len(ids) + 1, dtype=np.int64)
        changes[starts] += 1
        changes[starts + lengths] -= 1
        self._is_hidden = np.zeros(len(self._is_mark), dtype=np.bool_)
        self._is_hidden[~self._is_mark] = np.cumsum(changes)[:-1] > 0

    def hide(self) -> Ids:
        """Return the sequence with each span replaced by its mark."""
        return self._ids[~self._is_hidden]

    def list_spans(self) -> Ids:
        """Return each mark, followed by its span."""
        return self._ids[self._is_hidden | self._is_mark]
