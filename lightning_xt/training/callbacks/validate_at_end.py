from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class ValidateAtEnd(Callback):
    """Validate after the last step of a run, whatever the interval."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        # A Trainer that should stop validates first; one that has reached `max_steps` only stops.
        if 0 < trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True
