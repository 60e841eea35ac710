from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from lightning.pytorch import Trainer

from lightning_xt.training.lightning_internals import TrainingEpochLoop
from lightning_xt.training.step_results import StepResults


class StepLoop(TrainingEpochLoop):
    """Training loop of Lightning without the work of each step that is not needed.

    The signature of `training_step` is read once. Processes do not broadcast in each batch whether one got a signal,
    which waits for the device: `Preemption` agrees on that at the boundaries of steps.

    Args:
        trainer: whose loop it replaces, before it trains.
    """

    def __init__(self, trainer: Trainer) -> None:
        replaced = trainer.fit_loop.epoch_loop
        super().__init__(trainer, min_steps=replaced.min_steps, max_steps=replaced.max_steps)
        self._results = StepResults()
        self._reader: Callable[..., Any] | None = None
        """`training_step` whose arguments are known."""
        self._names: tuple[str, ...] = ()

    def _build_kwargs(self, kwargs: OrderedDict[str, Any], batch: Any, batch_idx: int) -> OrderedDict[str, Any]:
        """Return the arguments of `training_step`."""
        step = self.trainer.lightning_module.training_step
        if step != self._reader:
            found = super()._build_kwargs(kwargs, batch, batch_idx)
            self._reader, self._names = step, tuple(found)
            return found
        kwargs.update(zip(self._names, (batch, batch_idx), strict=False))
        return kwargs

    def _broadcast_sigterm_tensor(self) -> None:
        """Do nothing: the Trainer handles no signals."""
