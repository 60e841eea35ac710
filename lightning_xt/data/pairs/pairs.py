"""What all sources of pairs have in common: tokenizers, evaluation, prediction."""

from abc import abstractmethod
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from lightning_xt.core.batch import EvaluationPairs
from lightning_xt.data.base import DataModule
from lightning_xt.data.loading.loader import Loader
from lightning_xt.data.pairs.source_files import Source, read_sources
from lightning_xt.data.tokenizers.base import Tokenizer


class EvaluationBatches(Protocol):
    """The batches of a split, by their number."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> EvaluationPairs: ...


class Pairs(DataModule):
    """Serves sources and their targets; a subclass says where they come from.

    Batches are `PairBatch` for training, `EvaluationPairs` for validation and test, and a list of `Source` for
    prediction. Evaluation and prediction deal whole batches out to the processes, so that each is computed alike on any
    number of them.

    A subclass sets the tokenizers in its constructor.

    Args:
        seed: chooses the sequence of training batches.
        predict_source: file of the sources that `predict` reads. None means none.
    """

    source_tokenizer: Tokenizer
    target_tokenizer: Tokenizer
    source_field: str | None = None
    """Which field of each line holds the source, where the file of sources is one of JSON lines."""

    max_source_ids: int | None = None
    """Ids of a source that are read, the end id included. None = all."""

    def __init__(self, *, seed: int, predict_source: str | None) -> None:
        super().__init__()
        # `logger=False`: Lightning refuses a data option that shares its name, not its value, with a model option.
        self.save_hyperparameters(logger=False)
        if "_instantiator" not in self.hparams:
            # Built from live objects, which a checkpoint that loads with `weights_only=True` cannot hold.
            self.hparams.clear()
        if not 0 <= seed < 2**64:
            raise ValueError(f"data.seed must be from 0 to 2**64 - 1, not {seed}; set --data.seed 0 or more")
        self.seed = seed
        self.predict_source = predict_source
        self._sources: list[Source] = []
        self._evaluation: dict[str, EvaluationBatches] = {}

    @abstractmethod
    def open_training(self) -> None:
        """Makes the training pairs ready, and finds out whether they can be trained on."""

    @abstractmethod
    def has_split(self, split: str) -> bool:
        """Whether there is a validation or test split."""

    @abstractmethod
    def evaluation_batches(self, split: str) -> EvaluationBatches:
        """The batches of the validation or test split, which there is."""

    @abstractmethod
    def evaluation_cut(self, lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Which sequences go into which batch of an evaluation or a prediction.

        Args:
            lengths: of the sequences, (sequences,) or (sequences, sides).
        """

    @abstractmethod
    def describe(self) -> str:
        """What error messages call the pairs, with the option that chose them."""

    def use_tokenizers(self, source: Tokenizer, target: Tokenizer) -> None:
        """Takes up tokenizers that have learnt already, such as those of a checkpoint."""

    @property
    def longest(self) -> tuple[int, int] | None:
        """Ids of the longest source, and those that a model reads of the longest target; None before they are known."""
        return None

    @property
    def vocab(self) -> dict[str, int | None]:
        """Sizes of the tokenizers and their special ids, which are the same in both."""
        source, target = self.source_tokenizer, self.target_tokenizer
        special = {"pad": target.pad, "start": target.start, "end": target.end}
        return {"source": source.vocab_size, "target": target.vocab_size, **special, "separator": None}

    def setup(self, stage: str) -> None:
        """Opens what a stage reads: the sources to predict, or the pairs.

        Raises:
            ValueError, FileNotFoundError: the pairs, a split of them that the stage needs, or the sources are no good.
        """
        if stage == "predict":
            self._sources = read_sources(self.predict_source, self.source_field)
            return
        split = "test" if stage == "test" else "validation"
        if stage == "fit":
            self.open_training()
        elif not self.has_split(split):
            raise ValueError(f"{self.describe()} has no {split} split; give one with {self.way_to(split)}")
        if self.has_split(split):
            self.open_evaluation(split)

    def open_evaluation(self, split: str) -> None:
        """Makes a split ready that there is."""
        self._evaluation[split] = self.evaluation_batches(split)

    def way_to(self, split: str) -> str:
        """The option that gives a split, for an error message where there is none."""
        return f"--data.{split}_path"

    def val_dataloader(self) -> Loader | list[Loader]:
        """This process's share of the validation batches; no loader where there is no validation split."""
        return self._evaluation_loader("validation")

    def test_dataloader(self) -> Loader | list[Loader]:
        """This process's share of the test batches."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> Loader:
        """This process's share of the sources: of batches of like length, rank, rank + world, ...

        An empty list where there are none: a process without a batch would not meet the others at the end.
        """
        rank, world = self.rank_and_world
        lengths = np.asarray([len(source["text"] or "") + 1 for source in self._sources], dtype=np.int64)
        batches = self.evaluation_cut(lengths)[rank::world]
        return Loader([[self._sources[number] for number in batch] for batch in batches] or [[]])

    def _evaluation_loader(self, split: str) -> Loader | list[Loader]:
        if not self.has_split(split):
            return []
        if split not in self._evaluation:
            self._evaluation[split] = self.evaluation_batches(split)
        batches = self._evaluation[split]
        rank, world = self.rank_and_world
        share = -(-len(batches) // world)
        return self._loader(_FilledUp(batches), sampler=range(rank, share * world, world), batch_size=None)

    def _loader(self, pairs: Dataset[Any], **options: Any) -> Loader:
        return Loader(
            DataLoader(
                pairs,
                collate_fn=_as_gathered,
                pin_memory=self._device.type == "cuda",
                # Of its own: every iteration draws a number, which must not change what the model draws next.
                generator=torch.Generator(),
                **options,
            )
        )

    @property
    def _device(self) -> torch.device:
        """Where batches go; the CPU without a Trainer."""
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    @property
    def _overfitting(self) -> bool:
        """Whether every epoch is to see the same batches."""
        # The Trainer sets this attribute in a helper, out of the type checker's sight.
        return self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]


class _FilledUp(Dataset[EvaluationPairs]):
    """The batches of a split, and after the last one copies of the first in which nothing counts.

    A process waits for the others with every batch, so none may have fewer.
    """

    def __init__(self, batches: EvaluationBatches) -> None:
        self.batches = batches

    def __getitem__(self, number: int) -> EvaluationPairs:
        if number < len(self.batches):
            return self.batches[number]
        first = self.batches[0]
        return first._replace(index=torch.full_like(first.index, -1))


def _as_gathered(batch: Any) -> Any:
    """Leaves a batch as it was gathered."""
    return batch
