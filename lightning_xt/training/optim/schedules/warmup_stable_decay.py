import math

from lightning_xt.system.option_checks import check_option
from lightning_xt.training.optim.schedules.base import Schedule, resolve_warmup
from lightning_xt.training.run_phases import resolve_steps


class WarmupStableDecay(Schedule):
    """Raise the learning rate linearly, keep it, then lower it by 1 minus a square root.

    Hägele et al., 2024. https://arxiv.org/abs/2405.18392
    With a given warmup_steps the rate does not depend on the length of the run until the decay begins, so a run can be
    extended from a checkpoint before that. The paper ends at a rate of 0; min_fraction 0.1 departs from it.
    Step s of the warm-up uses the fraction (s + 1) / warmup_steps, so no step is idle.

    Args:
        total_steps: optimizer steps of the run, from trainer.max_steps.
        warmup_steps: optimizer steps until the full learning rate. None = a twentieth of the run.
        decay: length of the last phase: optimizer steps if it is a whole number, or a fraction of the run, 0.0 to 1.0.
        min_fraction: fraction of the learning rate that the last step uses, 0 to 1.
    """

    def __init__(
        self,
        total_steps: int,
        *,
        warmup_steps: int | None = None,
        decay: int | float = 0.4,
        min_fraction: float = 0.1,
    ) -> None:
        check_option("schedule: WarmupStableDecay", "min_fraction", min_fraction, least=0, most=1)
        self.min_fraction = min_fraction
        self.warmup_steps = resolve_warmup(self, warmup_steps, total_steps)
        self.decay_steps = resolve_steps("schedule: WarmupStableDecay", "decay", decay, total_steps)
        self.stable_steps = total_steps - self.warmup_steps - self.decay_steps
        if self.stable_steps < 0:
            raise ValueError(
                f"schedule: WarmupStableDecay has {self.warmup_steps} steps of warm-up and {self.decay_steps} of "
                f"decay, more than trainer.max_steps ({total_steps}); lower --model.schedule.warmup_steps or "
                "--model.schedule.decay, or train for longer"
            )

    def __call__(self, step: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        decayed = step + 1 - self.warmup_steps - self.stable_steps
        if decayed <= 0:
            return 1.0
        # The last step is total_steps - 1: there the rate has arrived.
        way = min(1.0, decayed / self.decay_steps) if self.decay_steps else 0.0
        return self.min_fraction + (1 - self.min_fraction) * (1 - math.sqrt(way))
