import math
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import (
    BatchesProcessedColumn,
    CustomBarColumn,
    CustomTimeColumn,
)
from rich import get_console
from rich.progress import TextColumn

from lightning_xt.system.core_use import CoreMeter
from lightning_xt.system.time_left import TimeLeft, format_seconds
from lightning_xt.training.step_boundaries import at_step_boundary, find_run_steps, is_logged

NAMES = {"train/loss": "loss", "speed/tokens_per_second": "tokens/s", "speed/mfu": "mfu"}
"""Shorter names of the metrics that come first."""
OTHERS = "other processes"
"""Name of the cores that other processes use."""
MEASURED = 2.0
"""Least seconds between two measurements of them."""
TEXT_WIDTH = len("Validation") + len("0:00:00 • 0:00:00") + 4
"""Columns of a bar's words, its times and the spaces between its parts."""


class StepProgressBar(RichProgressBar):
    """Progress bar that counts optimizer steps, and prints a line after each validation.

    A bar and its metrics fit the terminal. Without a terminal there is no bar: a line with the time left is printed
    every `trainer.log_every_n_steps` steps, and in a validation, test or prediction after 10 seconds, 20, 40 and so on.

    Both say when other processes take cores from the threads of training, such as "other processes use 0.9 of 2 cores".

    Args:
        refresh_rate: batches between two updates of the bar; each waits for the device.
    """

    def __init__(self, refresh_rate: int = 10) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self._draws = get_console().is_terminal or get_console().is_jupyter
        self._total_steps = -1
        """Optimizer steps of the run; -1 if it has no end."""
        self._training: TimeLeft | None = None
        self._evaluation: TimeLeft | None = None
        self._meter: CoreMeter | None = None
        self._others = ""
        self._reported = False

    @property
    def is_enabled(self) -> bool:
        """True if bars are drawn."""
        return self._draws and super().is_enabled

    @property
    def total_train_batches(self) -> int | float:
        """Batches of the whole run if it has no epochs, else of an epoch."""
        trainer = self.trainer
        if trainer.max_steps > 0:
            return int(min(trainer.max_steps * trainer.accumulate_grad_batches, trainer.num_training_batches))
        return super().total_train_batches

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._total_steps = find_run_steps(trainer)
        self._training = TimeLeft(self._total_steps if self._total_steps > 0 else None, trainer.global_step)
        self._meter = CoreMeter(launched=trainer.world_size > 1) if trainer.is_global_zero else None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Lightning would read the logged values after every batch, which waits for the device.
        done = batch_idx + 1
        if self.is_enabled and (done % self.refresh_rate == 0 or done == self.total_train_batches):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        elif not self._draws and self._is_logged(trainer):
            self._print_step("train/loss")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_start(trainer, pl_module)
        self._begin("validation", trainer.num_val_batches)

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        super().on_validation_batch_end(*args, **kwargs)
        self._count()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_test_start(trainer, pl_module)
        self._begin("test", trainer.num_test_batches)

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        super().on_test_batch_end(*args, **kwargs)
        self._count()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_predict_start(trainer, pl_module)
        self._begin("prediction", trainer.num_predict_batches)

    def on_predict_batch_end(self, *args: Any, **kwargs: Any) -> None:
        super().on_predict_batch_end(*args, **kwargs)
        self._count()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            newest = ("train/loss",) if self._is_logged(trainer) else ()
            self._print_step(*newest, "val/loss", "val/bits_per_byte")

    def configure_columns(self, trainer: Trainer) -> list[Any]:
        theme = self.theme
        return [
            TextColumn("{task.description}"),
            CustomBarColumn(
                bar_width=self._bar_width,
                complete_style=theme.progress_bar,
                finished_style=theme.progress_bar_finished,
                pulse_style=theme.progress_bar_pulse,
            ),
            BatchesProcessedColumn(style=theme.batch_progress),
            CustomTimeColumn(style=theme.time),
        ]

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return the metrics that fit the line of the bar, first the loss, the speed and other processes."""
        items = super().get_metrics(trainer, pl_module)
        items.pop("v_num", None)
        order = [*NAMES, OTHERS]
        if others := self._describe_others():
            items[OTHERS] = others.removeprefix(f"{OTHERS} use ")
            self._report_once(others)
        room = get_console().width - TEXT_WIDTH - self._bar_width - 2 * len(str(self.total_train_batches)) - 1
        shown = {}
        for name in sorted(items, key=lambda name: order.index(name) if name in order else len(order)):
            value = items[name]
            if isinstance(value, float):
                value = f"{value:,.0f}" if name == "speed/tokens_per_second" else f"{value:.3f}"
            room -= len(f" {NAMES.get(name, name)}: {value}")
            if room < 0:
                break
            shown[NAMES.get(name, name)] = value
        return shown

    @property
    def _bar_width(self) -> int:
        return max(8, min(40, get_console().width - 92))

    def _get_train_description(self, current_epoch: int) -> str:
        return "Training  "

    def _is_logged(self, trainer: Trainer) -> bool:
        return is_logged(trainer, trainer.global_step) and at_step_boundary(trainer)

    def _begin(self, what: str, batches: Sequence[int | float]) -> None:
        """Begin an evaluation with these numbers of batches, one a loader."""
        total = sum(batches)
        self._what, self._batches = what, 0
        self._evaluation = TimeLeft(total if math.isfinite(total) else None)

    def _count(self) -> None:
        """Count a batch of an evaluation, and print a line if one is due and no bar is drawn."""
        self._batches += 1
        shown = not self._draws and self.trainer.is_global_zero and super().is_enabled
        evaluation = self._evaluation
        if shown and evaluation is not None and self._batches != evaluation.total and evaluation.is_due():
            print(f"{self._what}: {evaluation.describe(self._batches)}", flush=True)

    def _print_step(self, *names: str) -> None:
        """Print a line with the steps done, metrics and the speed."""
        trainer = self.trainer
        shown = {name: float(value) for name, value in trainer.callback_metrics.items()}
        parts = [f"{name} {shown[name]:.4f}" for name in names if name in shown]
        if "speed/tokens_per_second" in shown:
            parts.append(f"{shown['speed/tokens_per_second']:,.0f} tokens/s")
        left = None if self._training is None else self._training.estimate(trainer.global_step)
        if left is not None and trainer.global_step < self._total_steps:
            parts.append(f"{format_seconds(left)} left")
        if others := self._describe_others():
            parts.append(others)
        of = f"/{self._total_steps}" if self._total_steps > 0 else ""
        line = f"step {trainer.global_step}{of}  " + "  ".join(parts)
        if trainer.is_global_zero:
            self._print_line(line)

    def _describe_others(self) -> str:
        """Return what other processes use if they take cores from this one's threads; else an empty text."""
        if self._meter is not None and self._meter.elapsed >= MEASURED and (use := self._meter.measure()) is not None:
            self._others = str(use) if use.is_short(torch.get_num_threads()) else ""
        return self._others

    def _report_once(self, others: str) -> None:
        """Print a line at the first time in a run, because a narrow bar has no room for it."""
        if not self._reported:
            self._reported = True
            self._print_line(f"{others}, so that training is slower")

    def _print_line(self, line: str) -> None:
        console = getattr(self, "_console", None)
        if self.progress is not None and console is not None:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        else:
            print(line, flush=True)
