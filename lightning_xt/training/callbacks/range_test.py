from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_xt.system.time_left import TimeLeft, format_seconds
from lightning_xt.training.rate_range import has_diverged, space_rates
from lightning_xt.training.step_boundaries import at_step_boundary
from lightning_xt.training.text_module import TextModule


class RangeTest(Callback):
    """Learning rate range test: each optimizer step has a larger rate, until the loss diverges.

    Smith, 2015, https://arxiv.org/abs/1506.01186
    All groups of the optimizer are scaled alike, and `rates` are those of its option `lr`. There is no schedule. The
    command `lightning-xt lr` reports the result.

    Args:
        lowest: learning rate of the first step.
        highest: learning rate of the last step.
        steps: optimizer steps, at least 20.
    """

    def __init__(self, lowest: float = 1e-6, highest: float = 1.0, steps: int = 100) -> None:
        self.rates = space_rates(lowest, highest, steps)
        self.losses: list[float] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if isinstance(pl_module, TextModule):
            pl_module.schedule_factory = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if len(trainer.optimizers) != 1:
            raise ValueError(f"RangeTest needs a model with one optimizer; this one has {len(trainer.optimizers)}")
        optimizer = trainer.optimizers[0]
        self._time = TimeLeft(len(self.rates))
        self._given = [group["lr"] for group in optimizer.param_groups]
        self._main = optimizer.defaults.get("lr") or self._given[0]
        if not self._main > 0:
            raise ValueError("RangeTest scales the learning rates of the optimizer, so its lr must be above 0")

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        rate = self.rates[min(len(self.losses), len(self.rates) - 1)]
        for group, given in zip(trainer.optimizers[0].param_groups, self._given, strict=True):
            group["lr"] = given * rate / self._main

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if not at_step_boundary(trainer):
            return
        # Equal in all processes.
        self.losses.append(float(trainer.callback_metrics["train/loss"]))
        done, total = len(self.losses), len(self.rates)
        if done % max(1, total // 10) == 0 and (left := self._time.estimate(done)) is not None:
            rank_zero_info(
                f"step {done}/{total}  lr {self.rates[done - 1]:.1e}  loss {self.losses[-1]:.3f}  "
                f"{format_seconds(left)} left at most"
            )
        if has_diverged(self.losses):
            trainer.should_stop = True
