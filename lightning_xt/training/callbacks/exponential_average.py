from functools import partial

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_xt.system.option_checks import check_option
from lightning_xt.training.callbacks.weight_average import WeightAverage, lerp_by_type


class ExponentialAverage(WeightAverage):
    """Exponential moving average of the weights, for validations, samples and the users of checkpoints.

    Polyak and Juditsky, 1992, average the weights of all steps equally. This exponential form is common in training:
    each optimizer step moves the average by 1 - decay of the way to the weights. A skipped step does not move it.
    Training uses the weights themselves and is the same with and without the average.
    A checkpoint holds the average as `state_dict` and the weights as `current_model_state`. When training ends the
    module has the average. `TailAverage` averages the last steps of a run equally.

    Args:
        decay: fraction of the average that stays at each step, 0 to 1; 0.999 averages about the last 1000 steps.
        start_step: optimizer steps before the average begins; until then it equals the weights.
    """

    def __init__(self, decay: float = 0.999, start_step: int = 0) -> None:
        check_option(self.name, "decay", decay, least=0, below=1)
        check_option(self.name, "start_step", start_step, least=0)
        super().__init__()
        self.decay, self.start_step = decay, start_step

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        steps, span = trainer.max_steps - self.start_step, 1 / (1 - self.decay)
        if stage == "fit" and 0 < steps < span:
            rank_zero_info(
                f"{self.name} with decay {self.decay:g} averages about {span:,.0f} steps, but the run averages only "
                f"{steps:,}, so validations measure mostly its first weights; lower the decay, such as to "
                f"{max(0.0, 1 - 5 / steps):.2g}, or train for longer"
            )

    def is_due(self, step: int) -> bool:
        return step > self.start_step

    def move(self, average: list[Tensor], weights: list[Tensor], skipped: Tensor | bool) -> None:
        if isinstance(skipped, Tensor):
            # Known only on the device, for which training must not wait.
            lerp_by_type(average, weights, partial(self._find_way, skipped))
        elif not skipped:
            torch._foreach_lerp_(average, weights, 1 - self.decay)
        self.count.add_(1)

    def _find_way(self, skipped: Tensor, kind: torch.dtype) -> Tensor:
        return torch.full((), 1 - self.decay, dtype=kind, device=skipped.device).masked_fill(skipped, 0)
