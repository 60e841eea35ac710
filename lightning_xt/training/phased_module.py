"""Module that knows what it is used for."""

from typing import Any

from lightning.pytorch import LightningModule


class PhasedModule(LightningModule):
    """LightningModule that knows the phase it is in; Lightning's own record of it is gone once an error has passed."""

    phase: str | None = None
    """training, evaluation, sampling or prediction. None = nothing has begun."""

    def on_train_batch_start(self, *args: Any) -> None:
        self.phase = "training"

    def on_validation_start(self) -> None:
        self.phase = "evaluation"

    def on_test_start(self) -> None:
        self.phase = "evaluation"

    def on_predict_start(self) -> None:
        self.phase = "prediction"
