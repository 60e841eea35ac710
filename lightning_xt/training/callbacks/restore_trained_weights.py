from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities import rank_zero_info


class RestoreTrainedWeights(Callback):
    """Resume from the trained weights if a checkpoint's run averaged them and this one does not.

    The checkpoint's `state_dict` is the average, which does not fit the state of the optimizer.
    """

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        averages = any(isinstance(each, WeightAveraging) for each in trainer.callbacks)  # type: ignore[attr-defined]
        if averages or trainer.state.fn != "fit" or "current_model_state" not in checkpoint:
            return
        pl_module.load_state_dict(checkpoint["current_model_state"])
        names = [name for name in checkpoint.get("callbacks", {}) if name.endswith("Average")]
        rank_zero_info(
            "The checkpoint's run averaged its weights, this one does not: it resumes from the trained weights, "
            f"without their average; to keep averaging, add the callback {next(iter(names), 'ExponentialAverage')}."
        )
