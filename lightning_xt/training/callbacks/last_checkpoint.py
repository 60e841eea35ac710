from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_xt.checkpoints.runs import step_checkpoint, step_checkpoints
from lightning_xt.training.step_boundaries import at_step_boundary, is_validation_due, log_step


class LastCheckpoint(ModelCheckpoint):
    """Save `last.ckpt`, from which a run resumes, every n optimizer steps and when training ends.

    If a validation is due at the same step, the checkpoint is saved after it, because a resumed run would skip it.

    Args:
        every: optimizer steps between two checkpoints.
        keep: number of the newest checkpoints that are kept as `step-<n>.ckpt` too.
    """

    def __init__(self, every: int, keep: int = 0) -> None:
        super().__init__(
            filename="last", every_n_train_steps=every, monitor=None, save_top_k=1, enable_version_counter=False
        )
        self._every, self._keep = every, keep
        self._due = False

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        # In the middle of a step, a run that has just resumed would save half an accumulated gradient.
        if trainer.global_step % self._every or not at_step_boundary(trainer):
            return
        if not is_validation_due(trainer):
            if self._last_global_step_saved != trainer.global_step:
                log_step(trainer)
            super().on_train_batch_end(trainer, pl_module, *args, **kwargs)
        else:
            self._due = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._due:
            self._due = False
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._save(trainer)

    @property
    def saved_step(self) -> int:
        """Step of the file that this process has saved; 0 if it has saved none."""
        return int(self._last_global_step_saved)

    def save_now(self, trainer: Trainer) -> None:
        """Save `last.ckpt` unless this step has one. A step that is not due is not kept."""
        keep = self._keep
        if trainer.global_step % self._every:
            self._keep = 0
        try:
            self._save(trainer)
        finally:
            self._keep = keep

    def _save(self, trainer: Trainer) -> None:
        if self._last_global_step_saved != trainer.global_step:
            self._save_none_monitor_checkpoint(trainer, self._monitor_candidates(trainer))

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        if not self._keep:
            return
        folder, step = Path(filepath).parent, trainer.global_step
        trainer.save_checkpoint(step_checkpoint(folder, step), self.save_weights_only)
        if trainer.is_global_zero:
            kept = step_checkpoints(folder)
            # A run that has gone back drops the checkpoints of later steps.
            past = [number for number in kept if number <= step]
            for number in kept.keys() - {*past[-self._keep :]}:
                kept[number].unlink()
