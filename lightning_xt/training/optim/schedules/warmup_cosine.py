import math

from lightning_xt.system.option_checks import check_option
from lightning_xt.training.optim.schedules.base import Schedule, resolve_warmup


class WarmupCosine(Schedule):
    """Raise the learning rate linearly, then lower it along half a cosine.

    Loshchilov and Hutter, 2016. https://arxiv.org/abs/1608.03983
    One half wave, no restarts. Step s of the warm-up uses the fraction (s + 1) / warmup_steps, so no step is idle.

    Args:
        total_steps: optimizer steps of the run, from trainer.max_steps.
        warmup_steps: optimizer steps until the full learning rate. None = a twentieth of the run.
        min_fraction: fraction of the learning rate that the last step uses, 0 to 1.
    """

    def __init__(self, total_steps: int, *, warmup_steps: int | None = None, min_fraction: float = 0.1) -> None:
        check_option("schedule: WarmupCosine", "min_fraction", min_fraction, least=0, most=1)
        self.total_steps, self.min_fraction = total_steps, min_fraction
        self.warmup_steps = resolve_warmup(self, warmup_steps, total_steps)

    def __call__(self, step: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        # The last step is total_steps - 1: there the cosine has arrived.
        way = (step - self.warmup_steps) / max(1, self.total_steps - 1 - self.warmup_steps)
        return self.min_fraction + (1 - self.min_fraction) * 0.5 * (1 + math.cos(math.pi * min(1.0, way)))
