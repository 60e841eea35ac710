from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lightning_xt.data.base import DataModule
from lightning_xt.data.loading.loader import Loader
from lightning_xt.data.loading.sampler import CounterBatchSampler
from lightning_xt.data.loading.seeded_items import SeededItems
from lightning_xt.data.loading.shuffled_order import ShuffledOrder
from lightning_xt.data.loading.workers import worker_options
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.data.tokenizers.bytes import Bytes
from lightning_xt.data.tokenizers.numbers import Numbers
from lightning_xt.system.option_checks import check_option

SourceFactory = Callable[[], Dataset[Any]] | Callable[[], DataLoader[Any]]
"""A class of datasets or loaders, or a function that returns one."""


class CustomData(DataModule):
    """Your own datasets or DataLoaders, named by import path.

    A language model reads items of token ids `(seq_len + 1,)`, an encoder-decoder items `(src, tgt)` or
    `(src, tgt, src_mask)`. A dataset with a length is shuffled by the seed, resumes exactly and is split over
    processes; random numbers that it draws from the global generators of torch, numpy and Python depend on the seed and
    the item's number alone. A DataLoader, or a dataset without a length, is used as it is: by one process, and a
    resumed run begins it again. Texts, as in samples, are bytes if there are 256 target ids, else ids as numbers.

    With `inputs` an item is a dict of `tokens`, or of `src`, `tgt` and perhaps `src_mask`, and of the named inputs: a
    `condition` (width,), or (seq_len + 1, width) with one a token, for adaptive norms; `types` (seq_len + 1,) for
    TypeEmbedding; a `context` (vectors, width) and `context_mask` (vectors,) for cross-attention of a language model.

    Args:
        train_set: dataset or loader of the training data, such as {class_path: my_data.Rows, init_args: {path: a}}.
        vocab: sizes `source` and `target`; the ids `pad`, `start`, `end` and `separator` if there are any.
        validation_set: the same for validation. None = no validation.
        test_set: the same for the test split. None = no test.
        batch_size: items per training step of one process, for a dataset.
        eval_batch_size: items per evaluation step. None = `batch_size`.
        num_workers: processes that prepare batches of a dataset with a length for each training process; 0 = none,
            batches are prepared between the steps.
        seed: chooses the order of training items, and the random numbers that a dataset draws.
        inputs: names of the inputs besides ids that every item has.
    """

    def __init__(
        self,
        train_set: SourceFactory,
        *,
        vocab: dict[str, int | None],
        validation_set: SourceFactory | None = None,
        test_set: SourceFactory | None = None,
        batch_size: int = 16,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        inputs: Sequence[Literal["condition", "types", "context", "context_mask"]] = (),
    ) -> None:
        super().__init__(seed=seed)
        self.save_hyperparameters(logger=False, ignore=["train_set", "validation_set", "test_set"])
        check_option("CustomData", "--data.batch_size", batch_size, least=1)
        check_option("CustomData", "--data.eval_batch_size", eval_batch_size, least=1)
        check_option("CustomData", "--data.num_workers", num_workers, least=0)
        sizes = {name: vocab.get(name) or vocab.get("target") for name in ("source", "target")}
        if not all(sizes.values()):
            raise ValueError("--data.vocab needs the number of different tokens, such as {target: 256}")
        self._vocab = sizes | {name: vocab.get(name) for name in ("pad", "start", "end", "separator")}
        self._factories = {"train": train_set, "validation": validation_set, "test": test_set}
        self._sources: dict[str, Any] = {}
        self.batch_size = batch_size
        self.eval_batch_size = batch_size if eval_batch_size is None else eval_batch_size
        self.num_workers, self.given_inputs = num_workers, inputs

    @property
    def vocab(self) -> dict[str, int | None]:
        return self._vocab

    @property
    def tokenizer(self) -> Tokenizer:
        return self.target_tokenizer

    @property
    def source_tokenizer(self) -> Tokenizer:
        return Numbers(self._vocab["source"] or 0, pad=self._vocab["pad"], start=None, end=None)

    @property
    def target_tokenizer(self) -> Tokenizer:
        vocab = self._vocab
        if vocab["target"] == 256:
            return Bytes(separator=vocab["separator"])
        return Numbers(vocab["target"] or 0, pad=vocab["pad"], start=vocab["start"], end=vocab["end"])

    def samples_after(self, first: int, batches: int) -> int:
        """Count items of a dataset, or batches of a loader."""
        _, world = self.rank_and_world
        return first + batches * (self.batch_size * world if self._is_counted("train") else 1)

    def describe_size(self, batches: int) -> str:
        if not self._is_counted("train"):
            return ""
        return f"{len(self._source('train')):,} items, {self.samples_after(0, batches):,} items a step"

    def train_dataloader(self) -> Loader:
        """Return shuffled batches of a dataset without end, from where the run stopped; or the given loader."""
        self.mark_training_start()
        if not self._is_counted("train"):
            if self.samples_seen:
                rank_zero_info("--data.train_set has no numbered items: it begins again, though the run resumes")
            return self._use_as_is("train", self.batch_size)
        rank, world = self.rank_and_world
        batches = CounterBatchSampler(self.batch_size, start=self.next_sample, rank=rank, world=world)
        order = ShuffledOrder(self._count_items("train"), self.seed)
        return self._load_items(SeededItems(self._source("train"), self.seed, order), batch_sampler=batches)

    def val_dataloader(self) -> Loader | list[Loader]:
        """Return this process's items of the validation data; no loader if there are none."""
        return [] if self._factories["validation"] is None else self._build_evaluation_loader("validation")

    def test_dataloader(self) -> Loader:
        """Return this process's items of the test data; ValueError if there are none."""
        return self._build_evaluation_loader("test")

    def predict_dataloader(self) -> Any:
        """Refuse to predict by a ValueError, because there are no prompts."""
        raise ValueError("--data CustomData has no prompts; use lightning-xt generate RUN --prompts FILE")

    def _build_evaluation_loader(self, split: str) -> Loader:
        if not self._is_counted(split):
            return self._use_as_is(split, self.eval_batch_size)
        rank, world = self.rank_and_world
        items = range(rank, self._count_items(split, world), world)
        seeded = SeededItems(self._source(split), self.seed)
        return self._load_items(seeded, sampler=items, batch_size=self.eval_batch_size)

    def _source(self, split: str) -> Any:
        """Build a dataset or a loader once."""
        factory = self._factories[split]
        if factory is None:
            raise ValueError(f"--data CustomData has no {split} data; set --data.{split}_set")
        if split not in self._sources:
            found: object = factory()
            if not isinstance(found, (Dataset, DataLoader)):
                raise ValueError(
                    f"--data.{split}_set gives a {type(found).__name__}; it must be a Dataset or a DataLoader of torch"
                )
            self._sources[split] = found
        return self._sources[split]

    def _is_counted(self, split: str) -> bool:
        source = self._source(split)
        return not isinstance(source, (DataLoader, IterableDataset)) and hasattr(source, "__len__")

    def _count_items(self, split: str, least: int = 1) -> int:
        """Count the items of a dataset; ValueError if there are fewer than `least`, one for each process."""
        count = len(self._source(split))
        if not count:
            raise ValueError(f"--data.{split}_set has no items; give at least one")
        if count < least:
            raise ValueError(
                f"--data.{split}_set has {count} {'item' if count == 1 else 'items'} for {least} processes, which need "
                f"one each; give more items, or train with --trainer.devices {count}"
            )
        return count

    def _use_as_is(self, split: str, batch_size: int) -> Loader:
        if self.rank_and_world[1] > 1:
            raise ValueError(
                f"--data.{split}_set has no numbered items, so it cannot be split over "
                f"{self.rank_and_world[1]} processes; give a Dataset with a length, or train with --trainer.devices 1"
            )
        source = self._source(split)
        if isinstance(source, DataLoader):
            return Loader(source, ahead=source.num_workers > 0)
        if self.num_workers:
            raise ValueError(
                f"--data.num_workers {self.num_workers} would read --data.{split}_set, which has no numbered items, "
                "once in each worker; set --data.num_workers 0, or give a DataLoader whose workers divide its items"
            )
        return self._load_items(source, batch_size=batch_size)

    def _load_items(self, dataset: Any, **options: Any) -> Loader:
        return Loader(
            DataLoader(
                dataset,
                num_workers=self.num_workers,
                persistent_workers=self.num_workers > 0,
                pin_memory=self._device.type == "cuda",
                # Its own generator: every iteration draws a number, which must not change the model's random numbers.
                generator=torch.Generator(),
                **options,
                **worker_options(self.num_workers),
            ),
            ahead=self.num_workers > 0,
        )
