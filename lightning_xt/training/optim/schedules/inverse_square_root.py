from lightning_xt.training.optim.schedules.base import Schedule, resolve_warmup


class InverseSquareRoot(Schedule):
    """Raise the learning rate linearly, then lower it by the inverse square root of the step.

    Vaswani et al., 2017. https://arxiv.org/abs/1706.03762
    The rate is the optimizer's at the end of the warm-up, half of it at four times as many steps. It does not depend on
    the length of the run.

    Args:
        total_steps: optimizer steps of the run, from trainer.max_steps.
        warmup_steps: optimizer steps until the full learning rate. None = a twentieth of the run.
    """

    def __init__(self, total_steps: int, *, warmup_steps: int | None = None) -> None:
        self.warmup_steps = resolve_warmup(self, warmup_steps, total_steps)

    def __call__(self, step: int) -> float:
        # The first step is 0; without a warm-up it has the full rate.
        peak, number = max(1, self.warmup_steps), step + 1
        return number / peak if number < peak else float((peak / number) ** 0.5)
