from abc import ABC, abstractmethod
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_xt.system.option_checks import check_option
from lightning_xt.training.run_phases import resolve_steps
from lightning_xt.training.step_boundaries import count_run_steps, is_logged


class LinearSchedule(Callback, ABC):
    """Base of callbacks that change an option over a run, linearly from one fraction of its value to another.

    The fraction is a function of the optimizer step, so a resumed run continues it.

    Args:
        start: fraction up to the step `begin`.
        end: fraction from the end of the change on.
        begin: step of the first change, counted from 0, if it is a whole number, or a fraction of the run, 0.0 to 1.0.
        length: optimizer steps of the change, or a fraction of the run. None = the rest of the run; 0 = at once.
    """

    metric: str
    """Name under which the value is logged."""

    def __init__(self, start: float, end: float, begin: int | float, length: int | float | None) -> None:
        check_option(self.name, "start", start, least=0)
        check_option(self.name, "end", end, least=0)
        check_option(self.name, "begin", begin, least=0)
        check_option(self.name, "length", length, least=0)
        self.start, self.end, self.begin, self.length = start, end, begin, length
        self._phase = (0, 0)
        """First step of the change, and its number of steps."""

    @abstractmethod
    def apply(self, trainer: Trainer, fraction: float) -> float:
        """Set the option to a fraction of its value; return a value to log."""

    @property
    def name(self) -> str:
        """Name in messages."""
        return f"trainer.callbacks: {type(self).__name__}"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the steps of the change; ValueError if the run is shorter."""
        planned = getattr(pl_module, "planned_steps", None)
        total = count_run_steps(trainer, planned, user=self.name, way_out=f" or omit {type(self).__name__}")
        begin = resolve_steps(self.name, "begin", self.begin, total)
        length = total - begin if self.length is None else resolve_steps(self.name, "length", self.length, total)
        if begin + length > total:
            raise ValueError(
                f"{self.name} has begin {self.begin} and length {self.length}, which end after {begin + length} steps, "
                f"but the run has {total}; lower one of them or train for longer"
            )
        self._phase = (begin, length)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        value = self.apply(trainer, self.find_fraction(trainer.global_step))
        if is_logged(trainer, trainer.global_step + 1):
            pl_module.log(self.metric, value)

    def find_fraction(self, step: int) -> float:
        """Return the fraction of a step, counted from 0. The last step of the change has the whole of it."""
        begin, length = self._phase
        if step < begin:
            return self.start
        way = min(1.0, (step - begin) / (length - 1)) if length > 1 else 1.0
        return self.start + (self.end - self.start) * way
