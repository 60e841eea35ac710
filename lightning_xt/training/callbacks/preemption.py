from datetime import timedelta
from functools import partial
from shlex import quote
from typing import Any

import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from lightning_xt.checkpoints.runs import checkpoint_file, explain_restart
from lightning_xt.system.stopping import (
    INTERRUPTED,
    PREEMPTED,
    TERMINATED,
    Stopped,
    StopSignals,
    describe_signal,
    find_installed_signals,
)
from lightning_xt.training.callbacks.last_checkpoint import LastCheckpoint
from lightning_xt.training.callbacks.run_folder import find_run_folder
from lightning_xt.training.step_boundaries import at_step_boundary, is_validation_due, log_step

ENDLESS = 2**40
"""Batches of a loader without a length."""
SECONDS = 600
"""Longest time that a process waits at a boundary for the others, which may still be reading their first batch."""


class Preemption(Checkpoint):
    """On SIGTERM, SIGUSR1 or Ctrl-C, finish the step, save `last.ckpt` once and end with exit code 75 (Ctrl-C: 130).

    The signal may come to one process or to all. Between two steps, and between two batches of a validation, all
    processes agree whether one of them got it; they do so on the CPU, so that no GPU is waited for. An interrupted
    validation is owed: the checkpoint says so, and the resumed run begins with it. Samples are always finished.

    `cli.main` installs the handlers; without them nothing happens.
    """

    def __init__(self) -> None:
        self._signals: StopSignals | None = None
        self._group: Any = None
        self._stops = False
        """True if the run ends at this boundary."""
        self._interrupted = False
        """True if a process of the run has got a Ctrl-C."""
        self._owed: dict[str, float] | None = None
        """Metrics of the step before an interrupted validation; None if no validation is owed."""
        self._batches = 0
        """Batches of a validation that all processes have, between which they agree."""
        self._step, self._limit = 0, -1
        """Step of the checkpoint that the run resumes, and the run's last step."""

    @property
    def owes_validation(self) -> bool:
        """True if the run begins with the validation of its last step."""
        return self._owed is not None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._signals = find_installed_signals()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self._owed, self._step = read_owed_validation(checkpoint), checkpoint["global_step"]
            if trainer.strategy.restore_checkpoint_after_setup:
                self._allow_one_more_step(trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._allow_one_more_step(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stops = False
        if trainer.world_size > 1:
            self._group = torch.distributed.new_group(backend="gloo", timeout=timedelta(seconds=SECONDS))
        if self._signals is not None:
            self._signals.waits = True
            self._signals.describe_way_out = partial(_describe_saved, trainer)
        if self._stop_requested():
            raise self._stop_error(trainer, "before its first step")
        if self._owed is not None:
            self._validate(trainer)

    def on_train_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        # Not earlier, because the metrics of a step are logged after its last hook.
        if self._stops:
            raise self._stop_error(trainer, f"after step {trainer.global_step}")

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if at_step_boundary(trainer):
            self._stops = self._stop_requested()
            if self._stops and not is_validation_due(trainer):
                log_step(trainer)
                self._save(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        if self._stops:
            self._interrupt(trainer)
        self._batches = self._count_common_batches(trainer)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not trainer.sanity_checking and batch_idx < self._batches and self._stop_requested():
            self._interrupt(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # The validation of the last step ends the run anyway.
        trains = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking and not _is_last_step(trainer)
        if trains and self._stop_requested():
            self._save(trainer)
            raise self._stop_error(trainer, f"after step {trainer.global_step}")

    def state_dict(self) -> dict[str, Any]:
        return {"owed": self._owed}

    def _stop_requested(self) -> bool:
        """Return True if a process of the run has got a signal."""
        name = None if self._signals is None else self._signals.received
        kind = 0 if name is None else 2 if name == "SIGINT" else 1
        if self._group is not None:
            kinds = torch.tensor([kind])
            torch.distributed.all_reduce(kinds, op=torch.distributed.ReduceOp.MAX, group=self._group)
            kind = int(kinds)
        self._interrupted = kind == 2
        return kind > 0

    def _count_common_batches(self, trainer: Trainer) -> int:
        """Return the batches of a validation that every process has."""
        count = torch.tensor([int(min(sum(trainer.num_val_batches), ENDLESS))])
        if self._group is not None:
            torch.distributed.all_reduce(count, op=torch.distributed.ReduceOp.MIN, group=self._group)
        return int(count)

    def _interrupt(self, trainer: Trainer) -> None:
        """Leave a validation, of which nothing has been logged yet."""
        if trainer.state.fn != TrainerFn.FITTING:
            raise self._stop_error(trainer, "while it was measured")
        self._owed = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self._save(trainer)
        raise self._stop_error(trainer, f"in the validation of step {trainer.global_step}")

    def _save(self, trainer: Trainer) -> None:
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, LastCheckpoint):
                callback.save_now(trainer)

    def _validate(self, trainer: Trainer) -> None:
        """Run the owed validation like the training loop."""
        loop, connector = trainer.fit_loop.epoch_loop, trainer._logger_connector
        connector._callback_metrics.update({name: torch.tensor(value) for name, value in (self._owed or {}).items()})
        first = connector._first_loop_iter
        trainer.validating = True
        loop.val_loop.restarting = False
        progress = loop.val_loop.batch_progress
        for name, count in vars(progress.current).items():
            # Its batches are evaluated again.
            setattr(progress.total, name, getattr(progress.total, name) - count)
        # Checkpoints from here on do not owe it.
        self._owed = None
        loop.val_loop.run()
        # Otherwise an epoch that ended with this step would count as finished again and again.
        loop.val_loop._has_run = False
        trainer.training = True
        connector._first_loop_iter = first
        # So that it is neither owed nor logged twice.
        self._save(trainer)
        if trainer.max_steps > self._limit > 0:
            trainer.fit_loop.epoch_loop.max_steps = self._limit

    def _allow_one_more_step(self, trainer: Trainer) -> None:
        """Let a run begin that owes only the validation of its last step."""
        self._limit = trainer.max_steps
        if self._owed is not None and 0 < self._limit <= self._step:
            trainer.fit_loop.epoch_loop.max_steps = self._step + 1

    def _stop_error(self, trainer: Trainer, when: str) -> Stopped:
        # A launcher takes any exit code except 0 for a fault.
        environment = getattr(trainer.strategy, "cluster_environment", None)
        launched = isinstance(environment, LightningEnvironment) and trainer.local_rank > 0
        name = None if self._signals is None else self._signals.received
        how = describe_signal("SIGINT" if self._interrupted else name)
        code = INTERRUPTED if self._interrupted else PREEMPTED if self._signals is None else self._signals.code
        sentence = f"{how} {when}; {_describe_way_out(trainer)}"
        return Stopped(0 if launched else code, sentence, together=trainer.world_size > 1)


def read_owed_validation(checkpoint: dict[str, Any]) -> dict[str, float] | None:
    """Read the metrics before the validation that a checkpoint owes; None if it owes none."""
    callbacks = checkpoint.get("callbacks")
    own = callbacks.get(Preemption.__qualname__) if isinstance(callbacks, dict) else None
    owed = own.get("owed") if isinstance(own, dict) else None
    return owed if isinstance(owed, dict) else None


def owes_validation(trainer: Trainer) -> bool:
    """Return True if the run begins with an owed validation."""
    found = (each for each in trainer.callbacks if isinstance(each, Preemption))  # type: ignore[attr-defined]
    return any(each.owes_validation for each in found)


def take_over_signals(trainer: Trainer) -> None:
    """Let a Trainer that is about to fit choose the moment at which a signal stops it."""
    signals = find_installed_signals()
    if signals is not None:
        stops = any(isinstance(each, Preemption) for each in trainer.checkpoint_callbacks)
        # From here on all processes stop together.
        signals.waits = stops and trainer.world_size > 1
        # A run without last.ckpt cannot be resumed, and a scheduler would begin it again for ever.
        saves = any(
            isinstance(each, LastCheckpoint) or (isinstance(each, ModelCheckpoint) and each.save_last)
            for each in trainer.checkpoint_callbacks
        )
        signals.code = PREEMPTED if stops and saves else TERMINATED
        if signals.received and not signals.waits:
            # It came while processes were starting, and nothing will ask for it again.
            raise signals.stop()


def _describe_way_out(trainer: Trainer) -> str:
    folder = find_run_folder(trainer)
    # A run that has saved nothing has removed its config too.
    saved = folder is not None and checkpoint_file(folder, "last").is_file()
    return f"resume with lightning-xt fit {quote(str(folder))} --resume" if saved else explain_restart(folder)


def _describe_saved(trainer: Trainer) -> str:
    steps = [each.saved_step for each in trainer.checkpoint_callbacks if isinstance(each, LastCheckpoint)]
    saved = f"last.ckpt is of step {max(steps)}" if any(steps) else "this command has saved nothing"
    return f"{saved}; {_describe_way_out(trainer)}"


def _is_last_step(trainer: Trainer) -> bool:
    return trainer.should_stop or 0 < trainer.max_steps <= trainer.global_step
