"""What every data module offers, whatever its samples are."""

from abc import ABC, abstractmethod
from copy import copy
from typing import Any, Self

from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info


class DataModule(LightningDataModule, ABC):
    """Serves training samples that are numbered 0, 1, ... for ever, so that a run resumes where it stopped.

    Sample n is a pure function of the options and n. A checkpoint therefore stores one number, the samples trained
    on by all processes together, and holds on any number of processes and for any batch size.
    """

    def __init__(self) -> None:
        super().__init__()
        self._restored: int | None = None
        self._first_sample = 0
        self._first_batch = 0
        self._process: tuple[int, int] | None = None

    @property
    @abstractmethod
    def vocab(self) -> dict[str, int | None]:
        """Sizes and special ids, or None: the keys are source and target (sizes), pad, start, end and separator (ids).

        The separator opens each document of a row that holds several, which the model is to keep apart. All are known
        from the constructor's arguments alone, because the command line links them into the model.
        """

    @abstractmethod
    def samples_after(self, first: int, batches: int) -> int:
        """Samples of the run that all processes together have seen, after `first` and `batches` more of each process.

        Args:
            first: samples seen before.
            batches: training batches that each process took since.
        """

    @property
    def content_hash(self) -> str | None:
        """Tells data that differ in content apart, on any machine; None where that is not known."""
        return None

    @property
    def rank_and_world(self) -> tuple[int, int]:
        """Which share of the data this process takes, and of how many; (0, 1) without a Trainer.

        Asked of the strategy, because processes that share one copy of the model share the data too.
        """
        if self._process is not None:
            return self._process
        kwargs = None if self.trainer is None else self.trainer.distributed_sampler_kwargs
        return (0, 1) if kwargs is None else (kwargs["rank"], kwargs["num_replicas"])

    def of_process(self, rank: int, world: int) -> Self:
        """These data, without a Trainer, as one of several processes serves them.

        Args:
            rank: of the process, from 0.
            world: how many there are.
        """
        share = copy(self)
        share.trainer, share._process = None, (rank, world)
        return share

    @property
    def samples_seen(self) -> int:
        """Samples that all processes together have trained on since the run began, resumes included."""
        if self._restored is not None:
            return self._restored
        return self.samples_after(self._first_sample, self._batches_done() - self._first_batch)

    def mark_training_start(self) -> None:
        """Fixes the sample from which the Trainer's batches are counted; called by every `train_dataloader`.

        That is after Lightning restored its counters, so batches before it may have had another size.
        """
        batches = self._batches_done()
        # Without a checkpoint a Trainer that counted nothing is a new run, though this object may have served another.
        fresh = self._restored is None and batches == 0
        self._first_sample = 0 if fresh else self.samples_seen
        self._first_batch = batches
        self._restored = None

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of the data."""
        return {"samples_seen": self.samples_seen, "hash": self.content_hash}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Makes training start after the samples that the checkpoint's run had seen."""
        if self.trainer is not None and self.trainer.predicting:
            return
        here, there = self.content_hash, state_dict.get("hash")
        if here is not None and there is not None and here != there:
            rank_zero_info(
                f"the data are not those of the checkpoint: their hash is {here[:16]} here, {there[:16]} there; these "
                "are used"
            )
        # `validate` and `test` restore the data too; a later `fit` of the same object must not start from there.
        if self.trainer is None or self.trainer.state.fn == TrainerFn.FITTING:
            self._restored = state_dict["samples_seen"]

    def _batches_done(self) -> int:
        """Batches this process trained on; `processed` is raised after the optimizer, before any checkpoint is saved.

        `completed` is one behind in a checkpoint that is saved at the end of a batch, `ready` counts a batch that an
        exception interrupted.
        """
        if self.trainer is None:
            return 0
        # Lightning annotates the counters by a base class that lacks this one.
        return int(self.trainer.fit_loop.epoch_loop.batch_progress.total.processed)  # type: ignore[attr-defined]
