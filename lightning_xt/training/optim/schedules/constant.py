from lightning_xt.training.optim.schedules.base import Schedule, resolve_warmup


class Constant(Schedule):
    """Keep the learning rate constant after a linear warm-up.

    Args:
        total_steps: optimizer steps of the run, from trainer.max_steps.
        warmup_steps: optimizer steps until the full learning rate. None = a twentieth of the run.
    """

    def __init__(self, total_steps: int, *, warmup_steps: int | None = None) -> None:
        self.warmup_steps = resolve_warmup(self, warmup_steps, total_steps)

    def __call__(self, step: int) -> float:
        return min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
