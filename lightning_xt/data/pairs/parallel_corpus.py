"""Base class of data modules of pairs: tokenizers, evaluation, prediction."""

from abc import abstractmethod
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from lightning_xt.core.batch import EvaluationPairs
from lightning_xt.data.base import DataModule
from lightning_xt.data.loading.loader import Loader
from lightning_xt.data.pairs.source_files import Source, read_sources
from lightning_xt.data.tokenizers.base import Tokenizer


class EvaluationBatches(Protocol):
    """The batches of a split, by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> EvaluationPairs: ...


class ParallelCorpus(DataModule):
    """Pairs of a source and a target; a subclass makes or reads them, and sets the tokenizers in its constructor.

    Batches are `PairBatch` for training, `EvaluationPairs` for validation and test, and a list of `Source` for
    prediction. Evaluation and prediction distribute whole batches over the processes, so each batch is computed alike
    on any number of processes.

    Args:
        seed: chooses the sequence of training batches.
        predict_source: file of the sources for `predict`. None means no file.
    """

    source_tokenizer: Tokenizer
    target_tokenizer: Tokenizer
    source_field: str | None = None
    """Field of the source if the file of sources is JSON lines."""

    def __init__(self, *, seed: int = 0, predict_source: str | None = None) -> None:
        super().__init__(seed=seed)
        # `logger=False`: Lightning refuses a data option with the name of a model option and another value.
        self.save_hyperparameters(logger=False)
        if "_instantiator" not in self.hparams:
            # Built from live objects, which a checkpoint loaded with `weights_only=True` cannot hold.
            self.hparams.clear()
        self.predict_source = predict_source
        self._sources: list[Source] = []
        self._evaluation: dict[str, EvaluationBatches] = {}

    @abstractmethod
    def open_training(self) -> None:
        """Prepare the training pairs, and refuse pairs that cannot be trained on."""

    @abstractmethod
    def has_split(self, split: str) -> bool:
        """Return True if the validation or test split exists."""

    @abstractmethod
    def evaluation_batches(self, split: str) -> EvaluationBatches:
        """Return the batches of an existing validation or test split."""

    @abstractmethod
    def cut_batches(self, lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Cut sequences into batches for evaluation or prediction; return the numbers of the sequences of each batch.

        The lengths are in tokens: (sequences,) or (sequences, sides).
        """

    @abstractmethod
    def describe(self) -> str:
        """Name the pairs in messages, with the option that chose them."""

    def use_tokenizers(self, source: Tokenizer, target: Tokenizer, trained_length: int | None = None) -> None:
        """Use trained tokenizers, such as those of a checkpoint, and its `trained_length` unless an option sets one."""

    @property
    def longest(self) -> tuple[int, int] | None:
        """Tokens of the longest source, and of the longest target as a decoder input; None if unknown."""
        return None

    @property
    def vocab(self) -> dict[str, int | None]:
        """Sizes of the tokenizers and their special ids, which both share."""
        source, target = self.source_tokenizer, self.target_tokenizer
        special = {"pad": target.pad, "start": target.start, "end": target.end}
        return {"source": source.vocab_size, "target": target.vocab_size, **special, "separator": None}

    def setup(self, stage: str) -> None:
        """Open the data of a stage: the sources for `predict`, else the pairs.

        Raises:
            ValueError, FileNotFoundError: the pairs, the split of the stage, or the sources are missing or malformed.
        """
        if stage == "predict":
            self._sources = read_sources(self.predict_source, self.source_field)
            return
        split = "test" if stage == "test" else "validation"
        if stage == "fit":
            self.open_training()
        elif not self.has_split(split):
            raise ValueError(f"{self.describe()} has no {split} split; give one with {self.option_for_split(split)}")
        if self.has_split(split):
            self.open_evaluation(split)

    def open_evaluation(self, split: str) -> None:
        """Prepare an existing split."""
        self._evaluation[split] = self.evaluation_batches(split)

    def option_for_split(self, split: str) -> str:
        """Return the option that gives a split, for messages."""
        return f"--data.{split}"

    def val_dataloader(self) -> Loader | list[Loader]:
        """Return this process's validation batches; no loader if there is no validation split."""
        return self._evaluation_loader("validation")

    def test_dataloader(self) -> Loader | list[Loader]:
        """Return this process's test batches."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> Loader:
        """Return this process's sources: batches rank, rank + world, ... of sources of similar length.

        A process without sources gets one empty batch, because the processes wait for each other at the end.
        """
        rank, world = self.rank_and_world
        lengths = np.asarray([len(source["text"] or "") + 1 for source in self._sources], dtype=np.int64)
        batches = self.cut_batches(lengths)[rank::world]
        return Loader([[self._sources[number] for number in batch] for batch in batches] or [[]])

    def _evaluation_loader(self, split: str) -> Loader | list[Loader]:
        if not self.has_split(split):
            return []
        if split not in self._evaluation:
            self._evaluation[split] = self.evaluation_batches(split)
        batches = self._evaluation[split]
        rank, world = self.rank_and_world
        count = -(-len(batches) // world)
        return self._build_loader(_PaddedBatches(batches), sampler=range(rank, count * world, world), batch_size=None)


class _PaddedBatches(Dataset[EvaluationPairs]):
    """The batches of a split, followed by copies of the first batch that are not scored.

    The processes wait for each other at every batch, so each must have the same number.
    """

    def __init__(self, batches: EvaluationBatches) -> None:
        self.batches = batches

    def __getitem__(self, number: int) -> EvaluationPairs:
        if number < len(self.batches):
            return self.batches[number]
        first = self.batches[0]
        return first._replace(index=torch.full_like(first.index, -1))
