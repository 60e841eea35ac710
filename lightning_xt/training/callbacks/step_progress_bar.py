from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar


class StepProgressBar(RichProgressBar):
    """Progress bar that counts optimizer steps, and prints a line after each validation.

    Args:
        refresh_rate: batches between two updates of the bar; each waits for the device.
    """

    def __init__(self, refresh_rate: int = 10) -> None:
        super().__init__(refresh_rate=refresh_rate)

    @property
    def total_train_batches(self) -> int | float:
        """Batches of the whole run if it has no epochs, else of an epoch."""
        trainer = self.trainer
        if trainer.max_steps > 0:
            return int(min(trainer.max_steps * trainer.accumulate_grad_batches, trainer.num_training_batches))
        return super().total_train_batches

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Lightning would read the logged values after every batch, which waits for the device.
        done = batch_idx + 1
        if self.is_enabled and (done % self.refresh_rate == 0 or done == self.total_train_batches):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        shown = {name: float(value) for name, value in trainer.callback_metrics.items()}
        parts = [
            f"{name} {shown[name]:.4f}" for name in ("train/loss", "val/loss", "val/bits_per_byte") if name in shown
        ]
        if "tokens_per_second" in shown:
            parts.append(f"{shown['tokens_per_second']:,.0f} tokens/s")
        steps = f"{trainer.global_step}/{trainer.max_steps}" if trainer.max_steps > 0 else str(trainer.global_step)
        self._print(f"step {steps}  " + "  ".join(parts))

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        items = super().get_metrics(trainer, pl_module)
        items.pop("v_num", None)
        return dict(items)

    def _get_train_description(self, current_epoch: int) -> str:
        return "Training  "

    def _print(self, line: str) -> None:
        if self.trainer.is_global_zero:
            console = getattr(self, "_console", None)
            if self.progress is not None and console is not None:
                console.print(line, highlight=False, markup=False, soft_wrap=True)
            else:
                print(line, flush=True)
