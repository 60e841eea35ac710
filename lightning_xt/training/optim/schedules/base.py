"""The contract of a schedule: the learning rate over a run."""

from abc import ABC, abstractmethod
from collections.abc import Callable


class Schedule(ABC):
    """Learning rate over a run, as a fraction of the optimizer's."""

    @abstractmethod
    def __call__(self, step: int) -> float:
        """Return the fraction at an optimizer step, counted from 0."""


def resolve_warmup(schedule: Schedule, warmup_steps: int | None, total_steps: int) -> int:
    """Return the steps of a warm-up, by default a twentieth of the run; ValueError unless shorter than the run."""
    if warmup_steps is None:
        return total_steps // 20
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"schedule: {type(schedule).__name__} has warmup_steps {warmup_steps}, which must be at least 0 and below "
            f"the steps of the run, of its epochs or trainer.max_steps ({total_steps}); lower "
            "--model.schedule.warmup_steps or train for longer"
        )
    return warmup_steps


ScheduleFactory = Callable[[int], Schedule]
"""Called with the number of optimizer steps of the whole run."""
