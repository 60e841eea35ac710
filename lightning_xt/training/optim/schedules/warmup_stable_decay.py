import math

from lightning_xt.training.optim.schedules.base import Schedule, warmup_of


class WarmupStableDecay(Schedule):
    """Raises the learning rate in a straight line, keeps it, then lowers it by 1 minus a square root.

    Hägele et al., 2024. https://arxiv.org/abs/2405.18392
    Where warmup_steps is given, the rate does not depend on the length of the run until the last phase begins, so a run
    can be trained for longer from a checkpoint of before. The paper ends at a rate of 0; min_share 0.1 departs from it.
    Step s of the warm-up uses the share (s + 1) / warmup_steps, so no step is idle.

    Args:
        total_steps: optimizer steps of the run, from trainer.max_steps.
        warmup_steps: optimizer steps until the full learning rate. None = a twentieth of the run.
        stable_steps: optimizer steps at the full learning rate. None = those that the other phases leave.
        decay_steps: optimizer steps in which it falls. None = decay_share of the run.
        decay_share: the same as a share of the run, 0 to 1; without effect where decay_steps is given.
        min_share: what is left of the learning rate at the last step, as a share of it, 0 to 1.
    """

    def __init__(
        self,
        total_steps: int,
        *,
        warmup_steps: int | None = None,
        stable_steps: int | None = None,
        decay_steps: int | None = None,
        decay_share: float = 0.4,
        min_share: float = 0.1,
    ) -> None:
        for name, share in (("decay_share", decay_share), ("min_share", min_share)):
            if not 0 <= share <= 1:
                raise ValueError(f"schedule: WarmupStableDecay has {name} {share}, which must be from 0 to 1")
        for name, steps in (("stable_steps", stable_steps), ("decay_steps", decay_steps)):
            if steps is not None and steps < 0:
                raise ValueError(f"schedule: WarmupStableDecay has {name} {steps}, which must be at least 0")
        self.total_steps, self.min_share = total_steps, min_share
        self.warmup_steps = warmup_of(self, warmup_steps, total_steps)
        self.decay_steps = round(decay_share * total_steps) if decay_steps is None else decay_steps
        left = total_steps - self.warmup_steps - self.decay_steps
        self.stable_steps = max(0, left) if stable_steps is None else stable_steps
        if self.stable_steps != left:
            raise ValueError(
                f"schedule: WarmupStableDecay has {self.warmup_steps} steps of warm-up, {self.stable_steps} at the "
                f"full rate and {self.decay_steps} of decay, which must add up to trainer.max_steps ({total_steps}); "
                "change --model.schedule.warmup_steps, stable_steps, decay_steps or decay_share, or train for longer"
            )

    def __call__(self, step: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        decayed = step + 1 - self.warmup_steps - self.stable_steps
        if decayed <= 0:
            return 1.0
        # The last step is total_steps - 1: there the rate has arrived.
        way = min(1.0, decayed / self.decay_steps) if self.decay_steps else 0.0
        return self.min_share + (1 - self.min_share) * (1 - math.sqrt(way))
