"""Pairs from a user's function."""

import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray
from torch import Tensor

from lightning_xt.core.batch import EvaluationPairs, PairBatch, find_inner_padding
from lightning_xt.data.loading.isolated_rng import IsolatedRng
from lightning_xt.data.loading.loader import Loader
from lightning_xt.data.loading.random_numbers import split_mix_64
from lightning_xt.data.pairs.parallel_corpus import ParallelCorpus
from lightning_xt.data.pairs.token_batches import cut_by_budget
from lightning_xt.data.tokenizers.numbers import Numbers
from lightning_xt.system.imports import NotAllowedError, find
from lightning_xt.system.option_checks import check_option

BatchFunction = Callable[[], Any]
"""Returns an iterable of (src, tgt, src_mask)."""

PREDICT_BUDGET = 16_384
"""Characters of a batch of sources for `predict`."""
SPLITS = ("train", "validation", "test")


class GeneratorPairs(ParallelCorpus):
    """Draw batches from a user's function that yields `(src, tgt, src_mask)` endlessly.

    `src (b, m)` and `tgt (b, n)` are ids padded on the right, `src_mask (b, m)` is boolean and False at padding, and
    every target begins with the start id. The function may draw from the global random number generators of torch,
    numpy and Python, which are set from the seed for it alone. So the batches are a function of the seed; a resumed run
    draws the batches it has seen again and discards them. With several processes, each draws all batches and uses its
    own.

    Args:
        function: import path of the function from the current folder, such as `pkg.module.cycle`; or the function
            itself. It takes no arguments.
        source_vocab_size: number of source ids.
        target_vocab_size: number of target ids.
        pad: the padding id, which stands to the right of a target only. None = targets have no padding.
        start: the start id of targets.
        end: the end id of targets; None means that targets have no end id.
        validation_batches: number of batches of the validation split, drawn with another seed; 0 means no validation.
        test_batches: number of batches of the test split, drawn with another seed; 0 means no test split.
        pairs: the options of `ParallelCorpus`; the sources for `predict` are ids as numbers, separated by spaces.
    """

    def __init__(
        self,
        function: str | BatchFunction,
        *,
        source_vocab_size: int,
        target_vocab_size: int,
        pad: int | None = 0,
        start: int = 1,
        end: int | None = None,
        validation_batches: int = 8,
        test_batches: int = 8,
        **pairs: Any,
    ) -> None:
        super().__init__(**pairs)
        sizes = {"source_vocab_size": source_vocab_size, "target_vocab_size": target_vocab_size}
        counts = {"validation_batches": validation_batches, "test_batches": test_batches}
        for option, value in {**sizes, **counts}.items():
            check_option("GeneratorPairs", f"--data.{option}", value, least=1 if option in sizes else 0)
        _check_special_ids({"pad": pad, "start": start, "end": end}, sizes)
        self.function = function
        self.name = function if isinstance(function, str) else _describe_function(function)
        self.batches = {"validation": validation_batches, "test": test_batches}
        self.source_tokenizer = Numbers(source_vocab_size, pad=pad, start=None, end=None)
        self.target_tokenizer = Numbers(target_vocab_size, pad=pad, start=start, end=end)

    def describe(self) -> str:
        return f"--data.function {self.name}"

    def option_for_split(self, split: str) -> str:
        return f"--data.{split}_batches"

    def samples_after(self, first: int, batches: int) -> int:
        """Count samples in batches."""
        _, world = self.rank_and_world
        return first + batches * world

    def describe_size(self, batches: int) -> str:
        step = self.samples_after(0, batches)
        return f"endless pairs, {step:,} {'batch' if step == 1 else 'batches'} of the function a step"

    def open_training(self) -> None:
        next(self.stream("train"))

    def has_split(self, split: str) -> bool:
        return self.batches[split] > 0

    def evaluation_batches(self, split: str) -> list[EvaluationPairs]:
        found: list[EvaluationPairs] = []
        rows = 0
        for batch in islice(self.stream(split), self.batches[split]):
            index = torch.arange(rows, rows + len(batch.src))
            # On the CPU, where loaders can pin them, whatever device the function uses.
            found.append(EvaluationPairs(batch.src.cpu(), batch.tgt.cpu(), batch.src_mask.cpu(), index, None))
            rows += len(index)
        return found

    def cut_batches(self, lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        return cut_by_budget(lengths, PREDICT_BUDGET)

    def train_dataloader(self) -> Loader:
        """Return endless training batches from the last saved position."""
        self.mark_training_start()
        # No prefetching thread: it would change the random states while the model uses them.
        return Loader(_TrainingBatches(self))

    def training_batches(self) -> Iterator[PairBatch]:
        """Return this process's training batches from the last saved position: rank, rank + world, ..."""
        rank, world = self.rank_and_world
        seen = self.next_sample()
        if seen:
            rank_zero_info(
                f"{self.describe()}: the {seen:,} batches that the run has trained on are drawn again and discarded"
            )
        return islice(self.stream("train", first=seen + rank), 0, None, world)

    def stream(self, split: str, first: int = 0) -> Iterator[PairBatch]:
        """Yield the checked batches of a split from number `first` on.

        ValueError if the function is missing, fails or ends, or a batch is malformed.
        """
        function = import_function(self.function) if isinstance(self.function, str) else self.function
        seed = int(split_mix_64(self.seed, [SPLITS.index(split)])[0])
        rng = IsolatedRng(seed, self._device)
        with rng.use(), self._named_errors():
            made = function()
        if not isinstance(made, Iterable):
            raise ValueError(
                f"{self.describe()} returns {_describe_type(made)}; it must yield batches of (src, tgt, src_mask)"
            )
        # A generator runs only when a batch is requested.
        batches = iter(made)
        number = 0
        while True:
            with rng.use(), self._named_errors():
                batch = next(batches, None)
            if batch is None:
                raise ValueError(
                    f"{self.describe()} ended after {number} batches of the {split} split; it must yield batches "
                    "endlessly, so wrap its loop in `while True:`"
                )
            if number >= first:
                yield self._check_batch(batch, f"{self.describe()}: batch {number} of the {split} split")
            number += 1

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Turn an error of the function into a ValueError with its place."""
        try:
            yield
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            raise ValueError(
                f"{self.describe()} raised {type(error).__name__}: {error} ({place.filename}, line {place.lineno}); "
                "fix it there"
            ) from error

    def _check_batch(self, batch: Any, place: str) -> PairBatch:
        """Return the batch with ids as int64; ValueError if it is malformed."""
        if problem := _find_form_problem(batch) or self._find_content_problem(*batch):
            raise ValueError(f"{place}: {problem}")
        src, tgt, src_mask = batch
        return PairBatch(src.long(), tgt.long(), src_mask)

    def _find_content_problem(self, src: Tensor, tgt: Tensor, src_mask: Tensor) -> str | None:
        """Return the problem with the ids of a batch; None if there is none."""
        empty = ~src_mask.any(dim=1)
        if empty.any():
            return f"source {int(empty.nonzero()[0])} is all padding; src_mask must be True for at least one id"
        sizes = {"src": self.source_tokenizer.vocab_size, "tgt": self.target_tokenizer.vocab_size}
        for (name, size), ids in zip(sizes.items(), (src, tgt), strict=True):
            if ids.min() < 0 or ids.max() >= size:
                wrong = int(ids.min() if ids.min() < 0 else ids.max())
                option = "source_vocab_size" if name == "src" else "target_vocab_size"
                return f"{name} holds the id {wrong}; with --data.{option} {size} ids are from 0 to {size - 1}"
        opening = tgt[:, 0].tolist()
        row = next((row for row, token in enumerate(opening) if token != self.target_tokenizer.start), None)
        if row is not None:
            return (
                f"target {row} begins with the id {opening[row]}; it must begin with the start id, "
                f"--data.start {self.target_tokenizer.start}"
            )
        if problem := find_inner_padding(tgt, self.target_tokenizer.pad):
            return f"{problem}; set --data.pad to an id that only fills up, or to null if there is none"
        return None


class _TrainingBatches:
    """Training batches of one process; every iterator resumes at the last saved position."""

    def __init__(self, pairs: GeneratorPairs) -> None:
        self.pairs = pairs

    def __iter__(self) -> Iterator[PairBatch]:
        return self.pairs.training_batches()


def import_function(path: str) -> BatchFunction:
    """Import a function; ValueError if there is no such function, or its module may not be imported."""
    module, _, name = path.rpartition(".")
    place = f"--data.function {path}"
    if not module:
        raise ValueError(
            f"{place} is not an import path; write module and function, such as --data.function mine.{path}"
        )
    try:
        function = find(path, Callable)
    except NotAllowedError as error:
        raise ValueError(f"{place}: {error}") from error
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            # A module that the user's module imports.
            raise
        raise ValueError(
            f"{place}: there is no module {error.name} here; start the command from the folder that holds it"
        ) from error
    except SyntaxError as error:
        raise ValueError(f"{place}: {error.filename}, line {error.lineno}: {error.msg}; fix it there") from error
    except AttributeError as error:
        raise ValueError(f"{place}: there is no {name} in {module}; name a function that takes no arguments") from error
    if not callable(function):
        raise ValueError(
            f"{place}: {name} is a {type(function).__name__}, not a function, in {module}; name a function that takes "
            "no arguments"
        )
    made: BatchFunction = function
    return made


def _find_form_problem(batch: Any) -> str | None:
    """Return the problem with the types and shapes of a batch; None if there is none."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 3 or not all(isinstance(each, Tensor) for each in batch):
        return f"it is {_describe_type(batch)}; yield three tensors, (src, tgt, src_mask)"
    src, tgt, src_mask = batch
    for name, ids in {"src": src, "tgt": tgt}.items():
        if ids.dtype.is_floating_point or ids.dtype.is_complex or ids.dtype == torch.bool:
            return f"{name} has dtype {ids.dtype}; ids must be integers, such as torch.long"
        if ids.dim() != 2 or 0 in ids.shape:
            return f"{name} has the shape {tuple(ids.shape)}; it must be (rows, ids), with at least one of each"
    if len(src) != len(tgt):
        return f"src has {len(src)} rows and tgt {len(tgt)}; each source needs its target"
    if tgt.shape[1] < 2:
        return "tgt has one id a row; after the start id there must be something to predict"
    if src_mask.dtype != torch.bool:
        return f"src_mask has dtype {src_mask.dtype}; it must be boolean, False at padding"
    if src_mask.shape != src.shape:
        return f"src_mask has the shape {tuple(src_mask.shape)}, but src {tuple(src.shape)}; they must be equal"
    return None


def _describe_function(function: BatchFunction) -> str:
    """Return the import path of a function; of another callable, such as a partial, its repr."""
    name = getattr(function, "__qualname__", None)
    return repr(function) if name is None else f"{function.__module__}.{name}"


def _describe_type(batch: Any) -> str:
    if isinstance(batch, (tuple, list)):
        return f"a {type(batch).__name__} of {', '.join(type(each).__name__ for each in batch) or 'nothing'}"
    return f"a {type(batch).__name__}"


def _check_special_ids(special: dict[str, int | None], sizes: dict[str, int]) -> None:
    """Raise a ValueError unless the special ids are different ids of the vocabularies."""
    given = {name: value for name, value in special.items() if value is not None}
    for name, value in given.items():
        least = min(sizes.values()) if name == "pad" else sizes["target_vocab_size"]
        if not 0 <= value < least:
            raise ValueError(
                f"--data.{name} {value} is not one of the ids 0 to {least - 1}; set another --data.{name} or a larger "
                "vocabulary, --data.source_vocab_size and --data.target_vocab_size"
            )
    if len(set(given.values())) < len(given):
        shown = ", ".join(f"--data.{name} {value}" for name, value in given.items())
        raise ValueError(f"{shown}: special ids must be different; change one of them")
