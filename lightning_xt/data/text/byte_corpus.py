"""What all corpora of bytes have in common: options, windows, loaders."""

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader, Dataset

from lightning_xt.data.base import DataModule
from lightning_xt.data.data_checks import require_at_least
from lightning_xt.data.loading.loader import Loader
from lightning_xt.data.loading.sampler import CounterBatchSampler, every_window_once
from lightning_xt.data.loading.workers import worker_options
from lightning_xt.data.prompt_files import Prompt, read_prompts
from lightning_xt.data.text.mapped_bytes import MappedBytes
from lightning_xt.data.text.resident import ResidentTokens, Starts, WindowStarts, made_resident
from lightning_xt.data.text.splits import Splits
from lightning_xt.data.text.windows import EvaluationWindows, TrainingWindows
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.data.tokenizers.bytes import Bytes


class ByteCorpus(DataModule):
    """Serves a long text as windows of bytes; a subclass says where the text comes from.

    Batches are `LongTensor (batch_size, seq_len + 1)` for training, `EvaluationBatch` for validation and test, and
    a list of `Prompt` for prediction.

    Args:
        seq_len: bytes a window predicts; it holds one more.
        batch_size: windows per training step of one process.
        eval_batch_size: windows per evaluation step of one process; None means `batch_size`.
        stride: bytes from one evaluation window to the next, 1 to `seq_len`; less gives each byte more context and
            takes longer. None means `seq_len`.
        seed: chooses the sequence of training windows.
        num_workers: processes that prepare batches beside each training process; 0 prepares them in it.
        resident: whether the training tokens are copied to the device and windows gathered there; `auto` does so on a
            GPU that has room for four times as many.
        predict_prompts: UTF-8 text file with one prompt per line, for `predict`, or a .jsonl file of objects with a
            `prompt`; None means no prompts.
    """

    def __init__(
        self,
        *,
        seq_len: int,
        batch_size: int,
        eval_batch_size: int | None,
        stride: int | None,
        seed: int,
        num_workers: int,
        resident: bool | Literal["auto"],
        predict_prompts: str | None,
    ) -> None:
        super().__init__()
        # `logger=False`: Lightning refuses a data option that shares its name, not its value, with a model option.
        self.save_hyperparameters(logger=False)
        require_at_least("seq_len", seq_len, 1)
        require_at_least("batch_size", batch_size, 1)
        require_at_least("num_workers", num_workers, 0)
        if eval_batch_size is not None:
            require_at_least("eval_batch_size", eval_batch_size, 1)
        if stride is not None and not 1 <= stride <= seq_len:
            raise ValueError(
                f"data.stride must be from 1 to data.seq_len ({seq_len}), not {stride}, or bytes would be left out; "
                f"leave --data.stride away for {seq_len}"
            )
        if not 0 <= seed < 2**64:
            raise ValueError(f"data.seed must be from 0 to 2**64 - 1, not {seed}; set --data.seed 0 or more")
        self.seq_len = seq_len
        self.batch_size = batch_size
        self.eval_batch_size = batch_size if eval_batch_size is None else eval_batch_size
        self.stride = stride
        self.seed = seed
        self.num_workers = num_workers
        self.resident = resident
        self.predict_prompts = predict_prompts
        self.tokenizer: Tokenizer = Bytes()
        self.separator: int | None = None
        """The byte that opens each document, where a subclass keeps them apart."""
        self._splits: Splits | None = None
        self._hash: str | None = None
        self._prompts: list[Prompt] = []
        self._on_device: ResidentTokens | None = None

    @abstractmethod
    def prepare(self) -> Splits:
        """Makes the corpus ready on disk. Cheap when it is already; safe in several processes at once."""

    @abstractmethod
    def describe(self) -> str:
        """What error messages call the corpus, with the option that chose it."""

    def ways_out(self, split: str) -> str:
        """What else an error message proposes when a split is too short, beside a smaller `seq_len`."""
        return "give more text"

    @property
    def vocab(self) -> dict[str, int | None]:
        """Sizes and special ids of the tokenizer, which serves as source and as target."""
        tokenizer = self.tokenizer
        sizes: dict[str, int | None] = dict.fromkeys(("source", "target"), tokenizer.vocab_size)
        special = {"pad": tokenizer.pad, "start": tokenizer.start, "end": tokenizer.end}
        return {**sizes, **special, "separator": self.separator}

    def samples_after(self, first: int, batches: int) -> int:
        _, world = self.rank_and_world
        return first + batches * self.batch_size * world

    @property
    def content_hash(self) -> str:
        """SHA-256 of what the splits hold."""
        if self._hash is None:
            self._hash = self.splits.hash
        return self._hash

    @property
    def splits(self) -> Splits:
        """The tokens of each split, made ready at the first call."""
        if self._splits is None:
            self._splits = self.prepare()
        return self._splits

    def prepare_data(self) -> None:
        """Prepares the corpus once per machine; predicting needs none."""
        if self.trainer is None or not self.trainer.predicting:
            # Hashed before training, which would wait for it at the first checkpoint.
            _ = self.content_hash

    def setup(self, stage: str) -> None:
        """Opens what a stage reads: the prompts, or the corpus.

        Raises:
            ValueError, FileNotFoundError: the corpus, a split of it that the stage needs, or the prompts are no good.
        """
        if stage == "predict":
            self._prompts = read_prompts(self.predict_prompts, may_be_empty=self.tokenizer.start is not None)
            return
        if stage == "fit":
            self._usable("train")
        if stage == "validate" or (stage == "fit" and self.splits.validation is not None):
            self._usable("validation")
        if stage == "test":
            self._usable("test")

    def train_dataloader(self) -> Loader:
        """Training batches without end, from where the run stopped."""
        self.mark_training_start()
        # The Trainer sets this attribute in a helper, out of the type checker's sight.
        overfit = self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]
        rank, world = self.rank_and_world
        # Overfitting is to see the same batches in every epoch.
        start = (lambda: 0) if overfit else (lambda: self.samples_seen)
        batches = CounterBatchSampler(self.batch_size, start=start, rank=rank, world=world)
        tokens = self._usable("train")
        windows = TrainingWindows(tokens, self.seq_len, self.seed)
        self._on_device = made_resident(tokens, self._device, self.resident, self.describe())
        return self._loader(windows if self._on_device is None else Starts(windows), batches)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Gathers the windows of a batch on the device where their tokens are there."""
        if isinstance(batch, WindowStarts) and self._on_device is not None:
            return self._on_device.windows(batch.starts, self.seq_len)
        return batch

    def val_dataloader(self) -> Loader | list[Loader]:
        """This process's share of the validation windows; no loader where there is no validation split."""
        return [] if self.splits.validation is None else self._evaluation_loader("validation")

    def test_dataloader(self) -> Loader:
        """This process's share of the test windows."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> Loader:
        """This process's share of the prompts, rank, rank + world, ..., as lists of at most `eval_batch_size`.

        An empty list where there are none: a process without a batch would not meet the others at the end.
        """
        rank, world = self.rank_and_world
        share, size = self._prompts[rank::world], self.eval_batch_size
        return Loader([share[first : first + size] for first in range(0, len(share), size)] or [[]])

    def _evaluation_loader(self, split: str) -> Loader:
        windows = EvaluationWindows(self._usable(split), self.seq_len, self.stride)
        rank, world = self.rank_and_world
        return self._loader(windows, every_window_once(len(windows), self.eval_batch_size, rank=rank, world=world))

    def _loader(self, windows: Dataset[Any], batches: Iterable[list[int]]) -> Loader:
        return Loader(
            DataLoader(
                windows,
                batch_sampler=batches,
                collate_fn=_as_gathered,
                num_workers=self.num_workers,
                persistent_workers=self.num_workers > 0,
                pin_memory=self._device.type == "cuda",
                # Of its own: every iteration draws a number, which must not change what the model draws next.
                generator=torch.Generator(),
                **worker_options(self.num_workers),
            )
        )

    @property
    def _device(self) -> torch.device:
        """Where batches go; the CPU without a Trainer."""
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    def _usable(self, split: str) -> MappedBytes:
        """The tokens of a split, which must hold one window at least."""
        tokens: MappedBytes | None = getattr(self.splits, split)
        if tokens is None:
            raise ValueError(f"{self.describe()} has no {split} split; {self.ways_out(split)}")
        if len(tokens) <= self.seq_len:
            smaller = f"lower --data.seq_len to at most {len(tokens) - 1} or " if len(tokens) > 1 else ""
            raise ValueError(
                f"data.seq_len {self.seq_len} needs at least {self.seq_len + 1} tokens in a split, but the {split} "
                f"split of {self.describe()} has {len(tokens)}; {smaller}{self.ways_out(split)}"
            )
        return tokens


def _as_gathered(batch: Any) -> Any:
    """Leaves a batch as the windows gathered it."""
    return batch
