"""Base class of data modules."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from typing import Any, ClassVar, Self

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader, Dataset

from lightning_xt.data.loading.loader import Loader


class DataModule(LightningDataModule, ABC):
    """Data module whose training samples are numbered 0, 1, ... endlessly, so that a run resumes exactly.

    Sample n is a pure function of the options and n. So a checkpoint stores one number, the samples trained on by all
    processes together, which is valid for any number of processes and, unless the order depends on it, any batch size.

    Args:
        seed: chooses the sequence of training samples.
    """

    trained_length: int | None = None
    """Tokens of the longest sequence that a model reads in training: a window, or a source and its end token. None =
    unknown."""
    stop: Sequence[str] = ()
    """Strings that end the completions of its prompts, in `predict`."""
    is_generated: ClassVar[bool] = False
    """True if rows are drawn from the seed, which is then part of `content_hash`, and from nothing that may change."""
    has_answers: bool = False
    """True if the scored tokens of a row are its answer, which is right or wrong: evaluations count the right ones."""
    logged: ClassVar[tuple[str, ...]] = ()
    """Metrics of a validation on these data besides those of the model."""
    given_inputs: Sequence[str] = ()
    """Inputs of a network besides the tokens that batches bring: names of fields of `Inputs`."""

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__()
        if not 0 <= seed < 2**64:
            raise ValueError(f"--data.seed must be from 0 to 2**64 - 1, not {seed}; set --data.seed 0 or more")
        self.seed = seed
        self._restored: int | None = None
        self._first_sample = 0
        self._first_batch = 0
        self._process: tuple[int, int] | None = None

    @property
    @abstractmethod
    def vocab(self) -> dict[str, int | None]:
        """Sizes (source, target) and special ids (pad, start, end, separator); None for an id that does not exist.

        The separator opens each document of a row with several documents, which the model separates. All values follow
        from the constructor's arguments, because the command line links them into the model.
        """

    @abstractmethod
    def samples_after(self, first: int, batches: int) -> int:
        """Return the samples trained on by all processes together, `first` of them before further batches of each."""

    def describe_size(self, batches: int) -> str:
        """Describe the size of the opened training data, and of a step with this number of batches in each process."""
        return ""

    def describe_order(self) -> dict[str, int | str]:
        """Return the values on which sample n depends besides those that stay equal; a checkpoint keeps them."""
        return {}

    def check_order(self, state_dict: dict[str, Any]) -> None:
        """Raise a ValueError if a run in another order of samples, as in its state, cannot resume in this one."""

    @property
    def content_hash(self) -> str | None:
        """Hash of the data's content, equal on every machine; None if unknown."""
        return None

    def bytes_per_token(self, split: str = "train") -> float | None:
        """Return the mean bytes of a token of a split; None if they are unknown."""
        return None

    @property
    def rank_and_world(self) -> tuple[int, int]:
        """Rank and number of the processes that split the data; (0, 1) without a Trainer.

        The strategy decides, because processes that share one copy of the model share its data too.
        """
        if self._process is not None:
            return self._process
        kwargs = None if self.trainer is None else self.trainer.distributed_sampler_kwargs
        return (0, 1) if kwargs is None else (kwargs["rank"], kwargs["num_replicas"])

    def for_process(self, rank: int, world: int) -> Self:
        """Return a copy, without a Trainer, that serves the batches of process `rank`, from 0, of `world` processes."""
        data = copy(self)
        data.trainer, data._process = None, (rank, world)
        return data

    @property
    def samples_seen(self) -> int:
        """Samples trained on by all processes together since the run began, resumes included."""
        if self._restored is not None:
            return self._restored
        return self.samples_after(self._first_sample, self._count_batches() - self._first_batch)

    def next_sample(self) -> int:
        """Return the sample from which an iteration trains: 0 if every epoch repeats the same batches."""
        return 0 if self._overfitting else self.samples_seen

    def mark_training_start(self) -> None:
        """Set the sample from which the Trainer's batches are counted; every `train_dataloader` calls it.

        Lightning has restored its counters by then, so earlier batches may have had another size.
        """
        batches = self._count_batches()
        # Without a checkpoint, a Trainer with zero batches is a new run, even if this object served another run.
        fresh = self._restored is None and batches == 0
        self._first_sample = 0 if fresh else self.samples_seen
        self._first_batch = batches
        self._restored = None

    def state_dict(self) -> dict[str, Any]:
        """Return the data's state for a checkpoint."""
        return {"samples_seen": self.samples_seen, "hash": self.content_hash, **self.describe_order()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Start training after the samples of the checkpoint's run."""
        if self.trainer is not None and self.trainer.predicting:
            return
        # `validate` and `test` restore the state too; a later `fit` of the same object must not start from it.
        fitting = self.trainer is None or self.trainer.state.fn == TrainerFn.FITTING
        if fitting:
            self.check_order(state_dict)
        here, there = self.content_hash, state_dict.get("hash")
        if here is not None and there is not None and here != there:
            hashes = f"their hash is {here[:16]}, the checkpoint's {there[:16]}"
            outcome = "; the run continues with the new data" if fitting else ""
            rank_zero_info(f"the data differ from the checkpoint's: {hashes}{outcome}")
        if fitting:
            self._restored = state_dict["samples_seen"]

    @property
    def _device(self) -> torch.device:
        """The device of the batches; the CPU without a Trainer."""
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    @property
    def _overfitting(self) -> bool:
        """True if every epoch repeats the same batches (`overfit_batches`)."""
        # The Trainer sets this attribute in a helper, which the type checker does not see.
        return self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]

    def _build_loader(self, samples: Dataset[Any], **options: Any) -> Loader:
        return Loader(
            DataLoader(
                samples,
                # Datasets gather whole batches.
                collate_fn=_keep,
                pin_memory=self._device.type == "cuda",
                # Its own generator: every iteration draws a number, which must not change the model's random numbers.
                generator=torch.Generator(),
                **options,
            )
        )

    def _count_batches(self) -> int:
        """Count the batches that this process trained on.

        Lightning raises `processed` after the optimizer step and before any checkpoint. `completed` is one behind in a
        checkpoint saved at the end of a batch, and `ready` includes a batch that an exception interrupted.
        """
        if self.trainer is None:
            return 0
        # Lightning annotates the counters with a base class that lacks this attribute.
        return int(self.trainer.fit_loop.epoch_loop.batch_progress.total.processed)  # type: ignore[attr-defined]


def _keep(batch: Any) -> Any:
    return batch
