from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor


class BestCheckpoint(ModelCheckpoint):
    """Save `best.ckpt` after each validation with the lowest loss so far.

    Separate from `LastCheckpoint`, because a callback that also saves by steps ranks a step by an earlier validation.
    """

    def __init__(self) -> None:
        super().__init__(
            filename="best",
            monitor="val/loss",
            mode="min",
            save_top_k=1,
            enable_version_counter=False,
            # Otherwise it needs a validation's loss even if there is no validation.
            save_on_train_epoch_end=False,
        )

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Save nothing: Lightning's decides so too, after several looks at the Trainer."""

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        # Lightning's takes the first loss of all, whatever it is.
        return current is not None and bool(current.isfinite()) and bool(super().check_monitor_top_k(trainer, current))
