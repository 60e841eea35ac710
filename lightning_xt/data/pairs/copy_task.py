"""Synthetic tasks: random symbols to copy, reverse or sort."""

import hashlib
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from lightning_xt.core.batch import PairBatch
from lightning_xt.data.loading.loader import Loader
from lightning_xt.data.loading.sampler import CounterBatchSampler
from lightning_xt.data.pairs.pair_table import PairTable, RaggedIds, TableBatches
from lightning_xt.data.pairs.parallel_corpus import ParallelCorpus
from lightning_xt.data.pairs.symbol_sequences import FIRST, Symbols, SymbolSequences
from lightning_xt.data.pairs.token_batches import cut_by_count
from lightning_xt.data.tokenizers.numbers import Numbers
from lightning_xt.system.option_checks import check_option

PAD, START = 0, 1


class CopyTask(ParallelCorpus):
    """Generate random sequences of symbols, whose target is the sequence copied, reversed or sorted.

    The symbols are the ids from 2 up; id 1 is the start token, and the id after the last symbol is the end token of
    sources and targets. Sequence n is a pure function of the seed and n. The content of a sequence decides its split,
    so no sequence is in two splits.

    Args:
        task: the target: `copy` the source once, `copy_twice` the source twice, `reverse` the source backwards, `sort`
            the symbols in ascending order.
        num_symbols: number of different symbols.
        min_length: symbols of the shortest source.
        max_length: symbols of the longest source; all lengths are equally likely. None means `min_length`.
        validation_size: pairs of the validation split; 0 means no validation.
        test_size: pairs of the test split.
        test_length: symbols of each source of the test split, to test longer sequences than in training. None means
            the lengths of training.
        batch_size: pairs per training step of one process.
        eval_batch_size: pairs per evaluation step of one process; None means `batch_size`.
        pairs: the options of `ParallelCorpus`; the seed chooses the pairs of all splits, and the sources for `predict`
            are ids as numbers, separated by spaces.

    Examples:
        >>> from lightning_xt import CopyTask
        >>> data = CopyTask("reverse", num_symbols=9, min_length=5, batch_size=4)
        >>> src, tgt, src_mask = next(iter(data.train_dataloader()))
        >>> src.shape, tgt.shape
        (torch.Size([4, 6]), torch.Size([4, 7]))
    """

    is_generated = True

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
        **pairs: Any,
    ) -> None:
        super().__init__(**pairs)
        check_option("CopyTask", "--data.validation_size", validation_size, least=0)
        positive: dict[str, int | None] = {"num_symbols": num_symbols, "min_length": min_length, "test_size": test_size}
        positive |= {"batch_size": batch_size, "eval_batch_size": eval_batch_size, "test_length": test_length}
        for option, value in positive.items():
            check_option("CopyTask", f"--data.{option}", value, least=1)
        self.lengths = (min_length, min_length if max_length is None else max_length)
        if self.lengths[1] < min_length:
            raise ValueError(
                f"--data.max_length must be at least --data.min_length ({min_length}), not {max_length}; set "
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

    def describe_size(self, batches: int) -> str:
        answer = self.lengths[1] * (2 if self.task == "copy_twice" else 1) + 1
        return f"endless pairs, at most {self.samples_after(0, batches) * answer:,} target tokens a step"

    @property
    def content_hash(self) -> str:
        """SHA-256 of the options that determine the training pairs."""
        source = (self.task, self.num_symbols, self.lengths, self.seed)
        return hashlib.sha256(repr(source).encode()).hexdigest()

    def describe(self) -> str:
        return "--data CopyTask"

    def option_for_split(self, split: str) -> str:
        return f"--data.{split}_size"

    def open_training(self) -> None:
        self._open_sequences("train")

    def has_split(self, split: str) -> bool:
        return self.sizes[split] > 0

    def evaluation_batches(self, split: str) -> TableBatches:
        symbols = self._open_sequences(split).draw(np.arange(self.sizes[split]))
        source, target = _build_source(symbols, self.end), _build_target(solve(symbols, self.task), self.end)
        table = PairTable(_pack(*source), _pack(*target), pad=PAD)
        return TableBatches(table, self.cut_batches(table.lengths))

    def cut_batches(self, lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        return cut_by_count(lengths, self.eval_batch_size)

    def train_dataloader(self) -> Loader:
        """Return endless training batches from the last saved position."""
        self.mark_training_start()
        rank, world = self.rank_and_world
        batches = CounterBatchSampler(self.batch_size, start=self.next_sample, rank=rank, world=world)
        pairs = _TrainingPairs(self._open_sequences("train"), self.task, self.end)
        return self._build_loader(pairs, batch_sampler=batches)

    def _open_sequences(self, split: str) -> SymbolSequences:
        lengths = self.test_lengths if split == "test" else self.lengths
        return SymbolSequences(split, self.num_symbols, lengths, self.seed)


class _TrainingPairs(Dataset[PairBatch]):
    """Training pairs by number."""

    def __init__(self, sequences: SymbolSequences, task: str, end: int) -> None:
        self.sequences = sequences
        self.task = task
        self.end = end

    def __getitem__(self, number: int) -> PairBatch:
        return self.__getitems__([number])

    def __getitems__(self, numbers: list[int]) -> PairBatch:
        symbols = self.sequences.draw(np.asarray(numbers))
        src, lengths = _build_source(symbols, self.end)
        tgt, _ = _build_target(solve(symbols, self.task), self.end)
        mask = np.arange(src.shape[1]) < lengths[:, None]
        return PairBatch(torch.from_numpy(src), torch.from_numpy(tgt), torch.from_numpy(mask))


def solve(symbols: Symbols, task: str) -> Symbols:
    """Return the answers of a task, padded on the right by zeros."""
    ids, lengths = symbols
    if task == "sort":
        # Padding sorts behind all symbols, then becomes zero again.
        last = np.iinfo(ids.dtype).max
        ordered = np.sort(np.where(ids == 0, last, ids), axis=1)
        return Symbols(np.where(ordered == last, 0, ordered), lengths)
    times = 2 if task == "copy_twice" else 1
    place = np.arange(ids.shape[1] * times)
    from_end = lengths[:, None] - 1 - place
    index = np.maximum(from_end, 0) if task == "reverse" else place % lengths[:, None]
    answer = np.take_along_axis(ids, index, axis=1)
    return Symbols(np.where(place < times * lengths[:, None], answer, 0), times * lengths)


def _build_source(symbols: Symbols, end: int) -> Symbols:
    """Append the end id to the symbols."""
    ids = np.pad(symbols.ids, ((0, 0), (0, 1)))
    ids[np.arange(len(ids)), symbols.lengths] = end
    return Symbols(ids, symbols.lengths + 1)


def _build_target(answer: Symbols, end: int) -> Symbols:
    """Put an answer between the start id and the end id."""
    ids = np.pad(_build_source(answer, end).ids, ((0, 0), (1, 0)), constant_values=START)
    return Symbols(ids, answer.lengths + 2)


def _pack(ids: NDArray[np.int64], lengths: NDArray[np.int64]) -> RaggedIds:
    real = np.arange(ids.shape[1]) < lengths[:, None]
    return RaggedIds.from_lengths(ids[real].astype(np.int32), lengths)
