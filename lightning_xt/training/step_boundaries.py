"""Boundaries between optimizer steps, at which a run may be saved and stopped."""

import math

from lightning.pytorch import Trainer


def count_run_steps(
    trainer: Trainer,
    planned: int | None = None,
    *,
    user: str = "the learning rate's schedule",
    way_out: str = ", or --model.schedule null for a constant learning rate",
) -> int:
    """Return the optimizer steps of a run: the fewer of max_steps and those of its epochs.

    ValueError if the run has no end.

    Args:
        trainer: of the run, whose epochs open the training data.
        planned: the max_steps that was asked for: the Trainer has another in a `fast_dev_run`. None = the Trainer's.
        user: needs the number, in the message.
        way_out: of the message, besides max_steps.
    """
    steps = find_run_steps(trainer, planned)
    if steps < 1:
        raise ValueError(
            f"trainer.max_steps is {steps}, but {user} needs the length of the run in optimizer steps; set "
            f"--trainer.max_steps{way_out}"
        )
    return steps


def find_run_steps(trainer: Trainer, planned: int | None = None) -> int:
    """Return the optimizer steps of a run as `count_run_steps` does; -1 if the run has no end."""
    steps = trainer.max_steps if planned is None else planned
    # A `fast_dev_run` has one epoch of few batches.
    if (trainer.max_epochs or -1) > 0 and (steps < 1 or not trainer.fast_dev_run):  # type: ignore[attr-defined]
        # Only here, because it opens the training data.
        found = trainer.estimated_stepping_batches
        epochs = -1 if found == math.inf else int(found)
        steps = epochs if steps < 1 else min(steps, epochs)
    return steps


def at_step_boundary(trainer: Trainer) -> bool:
    """Return True if the batch that ends completes an optimizer step."""
    return not trainer.fit_loop.epoch_loop._should_accumulate()


def is_logged(trainer: Trainer, step: int) -> bool:
    """Return True if the metrics of an optimizer step, counted from 1, are logged; those of a run's last step are."""
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return bool(every) and (step % every == 0 or step == trainer.max_steps)


def is_validation_due(trainer: Trainer) -> bool:
    """Return True if a validation follows the batch that ends."""
    interval = trainer.val_check_batch
    batches = trainer.fit_loop.epoch_loop.total_batch_idx + 1
    # `enable_validation` is True even without a batch to validate.
    can = trainer.enable_validation and sum(trainer.num_val_batches) > 0
    stops = trainer.should_stop and trainer.fit_loop._can_stop_early
    return bool(can and (stops or (interval and batches % interval == 0)))


def log_step(trainer: Trainer) -> None:
    """Log the metrics of the step that ends, in `on_train_batch_end`.

    Lightning logs only after that hook. A run that is saved there and then killed would never log them, because it
    resumes with the next step.
    """
    trainer._logger_connector.update_train_step_metrics()
