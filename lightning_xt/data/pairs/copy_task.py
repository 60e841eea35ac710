"""Sequences that are to be copied, reversed or sorted."""

import hashlib
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from lightning_xt.core.batch import PairBatch
from lightning_xt.data.data_checks import require_at_least
from lightning_xt.data.loading.loader import Loader
from lightning_xt.data.loading.sampler import CounterBatchSampler
from lightning_xt.data.pairs.pair_table import PairTable, Rows, TableBatches
from lightning_xt.data.pairs.pairs import Pairs
from lightning_xt.data.pairs.symbol_sequences import FIRST, Symbols, SymbolSequences
from lightning_xt.data.pairs.token_batches import by_count
from lightning_xt.data.tokenizers.numbers import Numbers

PAD, START = 0, 1


class CopyTask(Pairs):
    """Makes up sequences of symbols with what a model is to answer: the sequence copied, reversed or sorted.

    The symbols are the ids from 2 upwards; id 1 opens a target, and the id after the last symbol ends a source and a
    target. Sequence n is a pure function of the seed and n. What a sequence holds decides to which split it belongs,
    so that none of one split is ever in another.

    Args:
        task: the answer: `copy` the source, `copy_twice` the source two times, `reverse` the source from its end,
            `sort` its symbols in ascending order.
        num_symbols: how many different symbols there are.
        min_length: symbols of the shortest source.
        max_length: symbols of the longest source; each length is equally likely. None means `min_length`.
        validation_size: pairs of the validation split; 0 means no validation.
        test_size: pairs of the test split.
        test_length: symbols of each source of the test split, such as more than in training. None means as in training.
        batch_size: pairs per training step of one process.
        eval_batch_size: pairs per evaluation step of one process; None means `batch_size`.
        seed: chooses the sequence of training pairs, and the validation and test pairs.
        predict_source: file of the sources that `predict` reads, ids as numbers with spaces between. None means none.
    """

    def __init__(
        self,
        task: Literal["copy", "copy_twice", "reverse", "sort"] = "copy_twice",
        *,
        num_symbols: int = 16,
        min_length: int = 32,
        max_length: int | None = None,
        validation_size: int = 1000,
        test_size: int = 10000,
        test_length: int | None = None,
        batch_size: int = 16,
        eval_batch_size: int | None = None,
        seed: int = 0,
        predict_source: str | None = None,
    ) -> None:
        super().__init__(seed=seed, predict_source=predict_source)
        lowest = {"num_symbols": 1, "min_length": 1, "validation_size": 0, "test_size": 1, "batch_size": 1}
        given = {"num_symbols": num_symbols, "min_length": min_length, "validation_size": validation_size}
        given |= {"test_size": test_size, "batch_size": batch_size}
        for option, value in given.items():
            require_at_least(option, value, lowest[option])
        for option, limit in {"eval_batch_size": eval_batch_size, "test_length": test_length}.items():
            if limit is not None:
                require_at_least(option, limit, 1)
        self.lengths = (min_length, min_length if max_length is None else max_length)
        if self.lengths[1] < min_length:
            raise ValueError(
                f"data.max_length must be at least data.min_length ({min_length}), not {max_length}; set "
                f"--data.max_length {min_length} or more, or a smaller --data.min_length"
            )
        self.task = task
        self.num_symbols = num_symbols
        self.sizes = {"validation": validation_size, "test": test_size}
        self.test_lengths = self.lengths if test_length is None else (test_length, test_length)
        self.batch_size = batch_size
        self.eval_batch_size = batch_size if eval_batch_size is None else eval_batch_size
        self.end = num_symbols + FIRST
        numbers = Numbers(num_symbols + FIRST + 1, pad=PAD, start=START, end=self.end)
        self.source_tokenizer = self.target_tokenizer = numbers

    def samples_after(self, first: int, batches: int) -> int:
        _, world = self.rank_and_world
        return first + batches * self.batch_size * world

    @property
    def content_hash(self) -> str:
        """SHA-256 of what the training pairs follow from."""
        source = (self.task, self.num_symbols, self.lengths, self.seed)
        return hashlib.sha256(repr(source).encode()).hexdigest()

    def describe(self) -> str:
        return "--data CopyTask"

    def way_to(self, split: str) -> str:
        return f"--data.{split}_size"

    def open_training(self) -> None:
        self._symbols("train")

    def has_split(self, split: str) -> bool:
        return self.sizes[split] > 0

    def evaluation_batches(self, split: str) -> TableBatches:
        symbols = self._symbols(split).draw(np.arange(self.sizes[split]))
        source, target = _source(symbols, self.end), _target(answers(symbols, self.task), self.end)
        table = PairTable(_rows(*source), _rows(*target), pad=PAD)
        return TableBatches(table, self.evaluation_cut(table.lengths))

    def evaluation_cut(self, lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        return by_count(lengths, self.eval_batch_size)

    def train_dataloader(self) -> Loader:
        """Training batches without end, from where the run stopped."""
        self.mark_training_start()
        rank, world = self.rank_and_world
        start = (lambda: 0) if self._overfitting else (lambda: self.samples_seen)
        batches = CounterBatchSampler(self.batch_size, start=start, rank=rank, world=world)
        return self._loader(_Tasks(self._symbols("train"), self.task, self.end), batch_sampler=batches)

    def _symbols(self, split: str) -> SymbolSequences:
        lengths = self.test_lengths if split == "test" else self.lengths
        return SymbolSequences(split, self.num_symbols, lengths, self.seed)


class _Tasks(Dataset[PairBatch]):
    """Training pair n."""

    def __init__(self, sequences: SymbolSequences, task: str, end: int) -> None:
        self.sequences = sequences
        self.task = task
        self.end = end

    def __getitem__(self, number: int) -> PairBatch:
        return self.__getitems__([number])

    def __getitems__(self, numbers: list[int]) -> PairBatch:
        symbols = self.sequences.draw(np.asarray(numbers))
        src, lengths = _source(symbols, self.end)
        tgt, _ = _target(answers(symbols, self.task), self.end)
        mask = np.arange(src.shape[1]) < lengths[:, None]
        return PairBatch(torch.from_numpy(src), torch.from_numpy(tgt), torch.from_numpy(mask))


def answers(symbols: Symbols, task: str) -> Symbols:
    """What a model is to answer to sequences of symbols, padded on the right by zeros."""
    ids, lengths = symbols
    if task == "sort":
        # Padding is moved behind all symbols, and back to zero.
        last = np.iinfo(ids.dtype).max
        ordered = np.sort(np.where(ids == 0, last, ids), axis=1)
        return Symbols(np.where(ordered == last, 0, ordered), lengths)
    times = 2 if task == "copy_twice" else 1
    place = np.arange(ids.shape[1] * times)
    from_end = lengths[:, None] - 1 - place
    index = np.maximum(from_end, 0) if task == "reverse" else place % lengths[:, None]
    answer = np.take_along_axis(ids, index, axis=1)
    return Symbols(np.where(place < times * lengths[:, None], answer, 0), times * lengths)


def _source(symbols: Symbols, end: int) -> Symbols:
    """The symbols and the end id."""
    ids = np.pad(symbols.ids, ((0, 0), (0, 1)))
    ids[np.arange(len(ids)), symbols.lengths] = end
    return Symbols(ids, symbols.lengths + 1)


def _target(answer: Symbols, end: int) -> Symbols:
    """The start id, the answer and the end id."""
    ids = np.pad(_source(answer, end).ids, ((0, 0), (1, 0)), constant_values=START)
    return Symbols(ids, answer.lengths + 2)


def _rows(ids: NDArray[np.int64], lengths: NDArray[np.int64]) -> Rows:
    real = np.arange(ids.shape[1]) < lengths[:, None]
    return Rows.joined(ids[real].astype(np.int32), lengths)
