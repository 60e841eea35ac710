"""Pairs that a function of the user's makes."""

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

from lightning_xt.core.batch import EvaluationPairs, PairBatch
from lightning_xt.data.data_checks import require_at_least
from lightning_xt.data.loading.isolated_rng import OwnRandomness
from lightning_xt.data.loading.loader import Loader
from lightning_xt.data.pairs.pairs import Pairs
from lightning_xt.data.pairs.token_batches import by_budget
from lightning_xt.data.text.windows import split_mix_64
from lightning_xt.data.tokenizers.numbers import Numbers
from lightning_xt.system.imports import NotAllowedError, find

BatchFunction = Callable[[], Any]
"""Gives an iterable of (src, tgt, src_mask)."""

PREDICTED = 16_384
"""Characters of a batch of sources that `predict` reads."""
SPLITS = ("train", "validation", "test")


class GeneratorPairs(Pairs):
    """Takes batches from a function that yields `(src, tgt, src_mask)` for ever.

    `src (b, m)` and `tgt (b, n)` are ids padded on the right, `src_mask (b, m)` is boolean and True where a source id
    is real, and every target begins with the start id. The function may draw from the global random numbers of torch,
    numpy and Python: it has states of its own, set from the seed. So the batches follow from the seed, and a run that
    goes on draws those it has seen once more, without using them. Of several processes each draws all batches and
    takes its own.

    Args:
        function: import path of the function, such as `pkg.module.cycle`, from where the command is started; or the
            function itself. It takes no arguments.
        source_vocab_size: number of different source ids.
        target_vocab_size: number of different target ids.
        pad: the id that fills up.
        start: the id that opens a target.
        end: the id that follows a target; None means that targets have none.
        validation_batches: how many batches, drawn with a seed of their own, are the validation split; 0 means none.
        test_batches: how many batches, drawn with a seed of their own, are the test split; 0 means none.
        seed: chooses the random numbers of the function.
        predict_source: file of the sources that `predict` reads, ids as numbers with spaces between. None means none.
    """

    def __init__(
        self,
        function: str | BatchFunction,
        *,
        source_vocab_size: int,
        target_vocab_size: int,
        pad: int = 0,
        start: int = 1,
        end: int | None = None,
        validation_batches: int = 8,
        test_batches: int = 8,
        seed: int = 0,
        predict_source: str | None = None,
    ) -> None:
        super().__init__(seed=seed, predict_source=predict_source)
        sizes = {"source_vocab_size": source_vocab_size, "target_vocab_size": target_vocab_size}
        counts = {"validation_batches": validation_batches, "test_batches": test_batches}
        for option, value in {**sizes, **counts}.items():
            require_at_least(option, value, 1 if option in sizes else 0)
        _check_special({"pad": pad, "start": start, "end": end}, sizes)
        self.function = function
        self.name = function if isinstance(function, str) else _name(function)
        self.batches = {"validation": validation_batches, "test": test_batches}
        self.source_tokenizer = Numbers(source_vocab_size, pad=pad, start=None, end=None)
        self.target_tokenizer = Numbers(target_vocab_size, pad=pad, start=start, end=end)

    def describe(self) -> str:
        return f"--data.function {self.name}"

    def way_to(self, split: str) -> str:
        return f"--data.{split}_batches"

    def samples_after(self, first: int, batches: int) -> int:
        """Samples are counted in batches here."""
        _, world = self.rank_and_world
        return first + batches * world

    def open_training(self) -> None:
        next(self.stream("train"))

    def has_split(self, split: str) -> bool:
        return self.batches[split] > 0

    def evaluation_batches(self, split: str) -> list[EvaluationPairs]:
        found: list[EvaluationPairs] = []
        rows = 0
        for batch in islice(self.stream(split), self.batches[split]):
            index = torch.arange(rows, rows + len(batch.src))
            # Kept where loaders can pin them, wherever the function puts them.
            found.append(EvaluationPairs(batch.src.cpu(), batch.tgt.cpu(), batch.src_mask.cpu(), index, None))
            rows += len(index)
        return found

    def evaluation_cut(self, lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        return by_budget(lengths, PREDICTED)

    def train_dataloader(self) -> Loader:
        """Training batches without end, from where the run stopped."""
        self.mark_training_start()
        # No thread that reads ahead: it would change the random states while the model draws from them.
        return Loader(_Share(self))

    def share(self) -> Iterator[PairBatch]:
        """This process's training batches from where the run stopped: of those left rank, rank + world, ..."""
        rank, world = self.rank_and_world
        seen = 0 if self._overfitting else self.samples_seen
        if seen:
            rank_zero_info(f"{self.describe()}: the {seen:,} batches that the run has seen are drawn again")
        return islice(self.stream("train", first=seen + rank), 0, None, world)

    def stream(self, split: str, first: int = 0) -> Iterator[PairBatch]:
        """The batches of a split, checked, from number `first` on.

        Raises:
            FileNotFoundError, ValueError: there is no such function, or it yields what is no batch.
        """
        function = found_function(self.function) if isinstance(self.function, str) else self.function
        seed = int(split_mix_64(self.seed, [SPLITS.index(split)])[0])
        randomness = OwnRandomness(seed, cuda=self._device.type == "cuda")
        with randomness.used(), self._told():
            made = function()
        if not isinstance(made, Iterable):
            raise ValueError(f"{self.describe()} gives {_kind(made)}; it must yield batches of (src, tgt, src_mask)")
        # Runs the function only when a batch is asked for.
        batches = iter(made)
        number = 0
        while True:
            with randomness.used(), self._told():
                batch = next(batches, None)
            if batch is None:
                raise ValueError(
                    f"{self.describe()} ended after {number} batches of the {split} split; it must yield batches for "
                    "ever, so put its loop into another, `while True:`"
                )
            if number >= first:
                yield self._checked(batch, f"{self.describe()}: batch {number} of the {split} split")
            number += 1

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Says what the function raises, and where.

        Raises:
            ValueError: it raised anything.
        """
        try:
            yield
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            raise ValueError(
                f"{self.describe()} raised {type(error).__name__}: {error} ({place.filename}, line {place.lineno}); "
                "mend it there"
            ) from error

    def _checked(self, batch: Any, place: str) -> PairBatch:
        """The batch, if it is one.

        Raises:
            ValueError: it is none.
        """
        if problem := _form_problem(batch) or self._content_problem(*batch):
            raise ValueError(f"{place}: {problem}")
        src, tgt, src_mask = batch
        return PairBatch(src.long(), tgt.long(), src_mask)

    def _content_problem(self, src: Tensor, tgt: Tensor, src_mask: Tensor) -> str | None:
        empty = ~src_mask.any(dim=1)
        if empty.any():
            return f"source {int(empty.nonzero()[0])} is all padding; each needs an id for which src_mask is True"
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
        return None


class _Share:
    """The training batches of a process, anew from where the run stopped at every iteration."""

    def __init__(self, pairs: GeneratorPairs) -> None:
        self.pairs = pairs

    def __iter__(self) -> Iterator[PairBatch]:
        return self.pairs.share()


def found_function(path: str) -> BatchFunction:
    """The function of an import path.

    Raises:
        ValueError: there is none, or it may not be named.
    """
    module, _, name = path.rpartition(".")
    place = f"data.function {path}"
    if not module:
        raise ValueError(f"{place} is no import path; write module and function, such as --data.function mine.{path}")
    try:
        function = find(path, Callable)
    except NotAllowedError as error:
        raise ValueError(f"{place}: {error}") from error
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            # A module that the user's imports.
            raise
        raise ValueError(
            f"{place}: there is no module {error.name} here; start the command from the folder that holds it"
        ) from error
    except SyntaxError as error:
        raise ValueError(f"{place}: {error.filename}, line {error.lineno}: {error.msg}; mend it there") from error
    except AttributeError as error:
        raise ValueError(f"{place}: there is no {name} in {module}; name a function that takes no arguments") from error
    if not callable(function):
        raise ValueError(
            f"{place}: {name} is a {type(function).__name__}, no function, in {module}; name a function that takes no "
            "arguments"
        )
    made: BatchFunction = function
    return made


def _form_problem(batch: Any) -> str | None:
    """What is wrong with the tensors of a batch, whatever they hold."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 3 or not all(isinstance(each, Tensor) for each in batch):
        return f"it is {_kind(batch)}; yield three tensors, (src, tgt, src_mask)"
    src, tgt, src_mask = batch
    for name, ids in {"src": src, "tgt": tgt}.items():
        if ids.dtype.is_floating_point or ids.dtype.is_complex or ids.dtype == torch.bool:
            return f"{name} is of {ids.dtype}; ids are whole numbers, such as torch.long"
        if ids.dim() != 2 or 0 in ids.shape:
            return f"{name} has the shape {tuple(ids.shape)}; it must be (rows, ids), at least one of each"
    if len(src) != len(tgt):
        return f"src has {len(src)} rows and tgt {len(tgt)}; each source needs its target"
    if tgt.shape[1] < 2:
        return "tgt has only one id a row; behind the start id there must be something to predict"
    if src_mask.dtype != torch.bool:
        return f"src_mask is of {src_mask.dtype}; it must be boolean, True where a source id is real"
    if src_mask.shape != src.shape:
        return f"src_mask has the shape {tuple(src_mask.shape)}, but src {tuple(src.shape)}; they must be alike"
    return None


def _name(function: BatchFunction) -> str:
    """Where a function comes from; of another callable, such as a partial, what Python prints."""
    name = getattr(function, "__qualname__", None)
    return repr(function) if name is None else f"{function.__module__}.{name}"


def _kind(batch: Any) -> str:
    if isinstance(batch, (tuple, list)):
        return f"a {type(batch).__name__} of {', '.join(type(each).__name__ for each in batch) or 'nothing'}"
    return f"a {type(batch).__name__}"


def _check_special(special: dict[str, int | None], sizes: dict[str, int]) -> None:
    """Raises a ValueError unless the special ids are different ids."""
    given = {name: value for name, value in special.items() if value is not None}
    for name, value in given.items():
        least = min(sizes.values()) if name == "pad" else sizes["target_vocab_size"]
        if not 0 <= value < least:
            raise ValueError(
                f"data.{name} {value} is none of the ids 0 to {least - 1}; set another --data.{name} or a larger "
                "vocabulary, --data.source_vocab_size and --data.target_vocab_size"
            )
    if len(set(given.values())) < len(given):
        shown = ", ".join(f"data.{name} {value}" for name, value in given.items())
        raise ValueError(f"{shown}: special ids must be different; change one of them")
