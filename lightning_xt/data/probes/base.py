"""The contract of a probe: a task with exact answers that ranks architectures in minutes."""

import hashlib
from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from lightning_xt.core.batch import PackedBatch
from lightning_xt.data.base import DataModule
from lightning_xt.data.loading.loader import Loader
from lightning_xt.data.loading.random_numbers import split_mix_64
from lightning_xt.data.loading.sampler import CounterBatchSampler, batch_windows_once
from lightning_xt.data.pairs.symbol_sequences import FIRST, SPLITS, draw_split
from lightning_xt.data.probes.probe_draws import Draws, Ids
from lightning_xt.data.tokenizers.numbers import Numbers
from lightning_xt.system.option_checks import check_option

PAD, QUESTION_END = 0, 1
LENGTH = 0
"""Purpose of the random numbers that choose lengths; those of tasks are above."""


class ProbeRows(NamedTuple):
    """Questions with their answers.

    Args:
        ids: (rows, widest), padded on the right by zeros.
        lengths: number of ids of each row.
        scored: True for the ids of answers.
    """

    ids: Ids
    lengths: Ids
    scored: NDArray[np.bool_]


class Probe(DataModule):
    """Random questions with exact answers, for a language model that learns the answers only; a subclass draws them.

    A row is a question and its answer. Id 0 is padding, id 1 ends a question, and the task's ids follow from 2 up. The
    loss is a mean over the tokens of answers. Row n is a pure function of the options and n. The content of a row
    decides its split, so no row is in two splits. Batches are `PackedBatch` of one example a row, all of one width.

    Evaluations report `token_accuracy`, the fraction of the tokens of answers that are most likely given all before
    them, and `exact_match`, the fraction of answers of which all are: those that greedy decoding gets right.

    Args:
        min_length: length of the shortest question, in the task's units.
        max_length: length of the longest; all lengths are equally likely. None means `min_length`.
        validation_size: rows of the validation split; 0 means no validation.
        test_size: rows of the test split.
        test_length: length of each question of the test split, to test longer ones than in training. None means the
            lengths of training.
        batch_size: rows per training step of one process.
        eval_batch_size: rows per evaluation step of one process; None means `batch_size`.
        seed: chooses the rows of all splits.
    """

    has_answers = True
    is_generated = True
    logged: ClassVar = ("val/token_accuracy", "val/exact_match")

    def __init__(
        self,
        *,
        min_length: int = 32,
        max_length: int | None = None,
        validation_size: int = 1000,
        test_size: int = 10000,
        test_length: int | None = None,
        batch_size: int = 16,
        eval_batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed)
        self.check("validation_size", validation_size, least=0)
        positive = {"min_length": min_length, "test_size": test_size, "test_length": test_length}
        positive |= {"batch_size": batch_size, "eval_batch_size": eval_batch_size}
        for option, value in positive.items():
            self.check(option, value, least=1)
        self.lengths = (min_length, min_length if max_length is None else max_length)
        if self.lengths[1] < min_length:
            raise ValueError(
                f"--data.max_length must be at least --data.min_length ({min_length}), not {max_length}; set "
                f"--data.max_length {min_length} or more, or a smaller --data.min_length"
            )
        self.test_lengths = self.lengths if test_length is None else (test_length, test_length)
        self.sizes = {"validation": validation_size, "test": test_size}
        self.batch_size = batch_size
        self.eval_batch_size = batch_size if eval_batch_size is None else eval_batch_size

    @property
    @abstractmethod
    def num_ids(self) -> int:
        """Number of the task's ids, from 2 up."""

    @property
    @abstractmethod
    def options(self) -> tuple[Any, ...]:
        """Options of the task, on which its rows depend."""

    @abstractmethod
    def write(self, lengths: Ids, most: int, draws: Draws) -> ProbeRows:
        """Write rows.

        Args:
            lengths: length of each question, in the task's units.
            most: length of the longest possible one, which decides the width of all rows.
            draws: random numbers; purposes are from 1 up.
        """

    def check(self, option: str, value: float | None, **limits: float) -> None:
        """Raise a ValueError for an option outside its range."""
        check_option(type(self).__name__, f"--data.{option}", value, **limits)

    @property
    def longest(self) -> int:
        """Length of the longest question of any split."""
        return max(self.lengths[1], self.test_lengths[1])

    @property
    def vocab(self) -> dict[str, int | None]:
        size = FIRST + self.num_ids
        return {"source": size, "target": size, "pad": PAD, "start": None, "end": None, "separator": None}

    @property
    def tokenizer(self) -> Numbers:
        """Tokenizer that writes ids as numbers."""
        return Numbers(FIRST + self.num_ids, pad=PAD, start=None, end=None)

    @property
    def content_hash(self) -> str:
        """SHA-256 of the options that determine the training rows."""
        source = (type(self).__name__, self.options, self.lengths, self.seed)
        return hashlib.sha256(repr(source).encode()).hexdigest()

    def samples_after(self, first: int, batches: int) -> int:
        return first + batches * self.batch_size * self.rank_and_world[1]

    def describe_size(self, batches: int) -> str:
        return f"endless rows, {self.samples_after(0, batches):,} rows a step"

    def draw(self, split: str, numbers: Ids) -> ProbeRows:
        """Draw the rows of a split of these numbers; ValueError if the split has none."""
        least, most = self.test_lengths if split == "test" else self.lengths

        def write(rows: Ids, attempt: int) -> ProbeRows:
            stream = split_mix_64(self.seed, [attempt * len(SPLITS) + SPLITS.index(split)])
            draws = Draws(split_mix_64(stream, rows))
            return self.write(least + draws.draw_integers(LENGTH, 1, most - least + 1)[:, 0], most, draws)

        shortage = (
            f"--data {type(self).__name__} has too few rows of length {least} to {most} to leave any for the {split} "
            f"split; set a larger --data.{'test_length' if self.test_lengths != self.lengths else 'max_length'}"
        )
        return ProbeRows(*draw_split(write, split, numbers, shortage))

    def setup(self, stage: str) -> None:
        """Draw a first row of each split of a stage; ValueError if it is empty, or for `predict`."""
        if stage == "predict":
            raise ValueError(
                f"--data {type(self).__name__} has no prompts; use lightning-xt generate RUN --prompts FILE, with ids "
                "as numbers"
            )
        splits = ("train", "validation") if stage == "fit" else ("test" if stage == "test" else "validation",)
        for split in splits:
            if self.sizes.get(split, 1):
                self.draw(split, np.zeros(1, dtype=np.int64))
            elif stage != "fit":
                raise ValueError(
                    f"--data {type(self).__name__} has no validation split; give one with --data.validation_size"
                )
        self.trained_length = self.draw("train", np.zeros(1, dtype=np.int64)).ids.shape[1] - 1

    def train_dataloader(self) -> Loader:
        """Return endless training batches from the last saved position."""
        self.mark_training_start()
        rank, world = self.rank_and_world
        batches = CounterBatchSampler(self.batch_size, start=self.next_sample, rank=rank, world=world)
        return self._build_loader(_NumberedRows(self, "train", None), batch_sampler=batches)

    def val_dataloader(self) -> Loader | list[Loader]:
        """Return this process's validation rows; no loader if there is no validation split."""
        return self._build_evaluation_loader("validation") if self.sizes["validation"] else []

    def test_dataloader(self) -> Loader:
        """Return this process's test rows."""
        return self._build_evaluation_loader("test")

    def _build_evaluation_loader(self, split: str) -> Loader:
        rank, world = self.rank_and_world
        batches = batch_windows_once(self.sizes[split], self.eval_batch_size, rank=rank, world=world)
        return self._build_loader(_NumberedRows(self, split, self.sizes[split]), batch_sampler=batches)


class _NumberedRows(Dataset[PackedBatch]):
    """Rows of a split by number; those from number `size` on do not count. None = all count."""

    def __init__(self, probe: Probe, split: str, size: int | None) -> None:
        self.probe, self.split, self.size = probe, split, size

    def __getitem__(self, number: int) -> PackedBatch:
        """Return one row, as a batch of one."""
        return self.__getitems__([number])

    def __getitems__(self, numbers: list[int]) -> PackedBatch:
        """Return the rows of a batch."""
        rows = self.probe.draw(self.split, np.asarray(numbers))
        counts = np.ones(len(numbers), dtype=np.bool_) if self.size is None else np.asarray(numbers) < self.size
        scored = rows.scored[:, 1:] & counts[:, None]
        return PackedBatch(torch.from_numpy(rows.ids), torch.from_numpy(scored), None)


def join(question: Ids, question_lengths: Ids, answer: Ids, answer_lengths: Ids) -> ProbeRows:
    """Write each question, the id that ends it and its answer; ids past the lengths are not read."""
    width = question.shape[1] + 1 + answer.shape[1]
    place, end = np.arange(width), question_lengths[:, None]
    lengths = question_lengths + 1 + answer_lengths
    before = question[:, np.minimum(place, question.shape[1] - 1)]
    after = np.take_along_axis(answer, np.clip(place - end - 1, 0, answer.shape[1] - 1), axis=1)
    ids = np.where(place < end, before, np.where(place == end, QUESTION_END, after))
    scored = (place > end) & (place < lengths[:, None])
    return ProbeRows(np.where(place < lengths[:, None], ids, PAD), lengths, scored)
