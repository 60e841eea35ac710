"""Where a run may be saved and left: between two optimizer steps, before or after the validation that is due there."""

import math

from lightning.pytorch import Trainer


def count_run_steps(trainer: Trainer) -> int:
    """Return the optimizer steps of a run: max_steps, or those of its epochs.

    Raises:
        ValueError: the run has no end.
    """
    steps = trainer.max_steps
    if steps < 1 and (trainer.max_epochs or -1) > 0:
        # Asked only here: it opens the training data.
        found = trainer.estimated_stepping_batches
        steps = -1 if found == math.inf else int(found)
    if steps < 1:
        raise ValueError(
            f"trainer.max_steps is {trainer.max_steps}, but the learning rate's schedule needs the length of the run "
            "in optimizer steps; set --trainer.max_steps, or --model.schedule null for a constant learning rate"
        )
    return steps


def at_step_boundary(trainer: Trainer) -> bool:
    """Whether the batch that ends completes an optimizer step."""
    return not trainer.fit_loop.epoch_loop._should_accumulate()


def is_validation_due(trainer: Trainer) -> bool:
    """Whether a validation is due after the batch that ends."""
    interval = trainer.val_check_batch
    batches = trainer.fit_loop.epoch_loop.total_batch_idx + 1
    # `enable_validation` is True without a single batch to validate.
    can = trainer.enable_validation and sum(trainer.num_val_batches) > 0
    stops = trainer.should_stop and trainer.fit_loop._can_stop_early
    return bool(can and (stops or (interval and batches % interval == 0)))


def log_step(trainer: Trainer) -> None:
    """Logs what the step that ends has measured, in `on_train_batch_end`.

    Lightning does so only after that hook. A run that is saved there and then killed would never log it, because it
    goes on with the next step.
    """
    trainer._logger_connector.update_train_step_metrics()
