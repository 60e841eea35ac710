from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_xt.training.step_boundaries import at_step_boundary


class ValidationSchedule(Callback):
    """Validate by optimizer steps, never between the batches of one, and always at the end of a run.

    Lightning counts batches. The steps between two validations are `val_check_interval`, if it is a whole number and
    `check_val_every_n_epoch` is None, divided by the batches of a full step; an epoch may end with a shorter step.
    """

    def __init__(self) -> None:
        self._min_steps: int | None = None
        self._required = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning looks whether the checkpoint was saved before the validation of its step.
        self._set_due(trainer, trainer.global_step > 0 and self._is_multiple(trainer))

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        fit = trainer.fit_loop
        # Lightning annotates the counters with a base class that lacks this attribute.
        epochs = fit.epoch_progress.current.processed + 1  # type: ignore[attr-defined]
        ends = 0 < trainer.max_steps <= trainer.global_step
        ends |= 0 < (trainer.max_epochs or -1) <= epochs and fit.epoch_loop._num_ready_batches_reached()
        if ends:
            # A Trainer that should stop validates first; one that has reached its limit only stops.
            trainer.should_stop = True
        whole = at_step_boundary(trainer)
        self._require_step(trainer, not whole)
        self._set_due(trainer, whole and (ends or self._is_multiple(trainer)))

    def on_train_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self._require_step(trainer, False)

    on_exception = on_train_end

    def _require_step(self, trainer: Trainer, required: bool) -> None:
        """Let a Trainer that should stop between the batches of a step, such as after `max_time`, finish the step."""
        loop = trainer.fit_loop.epoch_loop
        if required != self._required:
            # Another number only between the batches of a step.
            self._min_steps, loop.min_steps = loop.min_steps, self._min_steps
            self._required = required
        if required:
            loop.min_steps = max(self._min_steps or 0, trainer.global_step + 1)

    def _is_multiple(self, trainer: Trainer) -> bool:
        every = max(1, int(trainer.val_check_interval) // trainer.accumulate_grad_batches)
        return trainer.global_step % every == 0

    def _set_due(self, trainer: Trainer, due: bool) -> None:
        """Let Lightning, which validates after multiples of a number of batches, do so now or not."""
        if isinstance(trainer.val_check_interval, int) and trainer.check_val_every_n_epoch is None:
            batches = trainer.fit_loop.epoch_loop.total_batch_idx + 1
            trainer.val_check_batch = max(1, batches if due else 2 * batches + 1)
