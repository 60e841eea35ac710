from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_xt.system.option_checks import check_option
from lightning_xt.training.callbacks.weight_average import WeightAverage, lerp_by_type
from lightning_xt.training.run_phases import resolve_steps
from lightning_xt.training.step_boundaries import count_run_steps


class TailAverage(WeightAverage):
    """Equal mean of the weights of the last steps of a run, for validations, samples and the users of checkpoints.

    Izmailov et al., 2018, https://arxiv.org/abs/1803.05407, average at a high learning rate; Kaddour, 2022,
    https://arxiv.org/abs/2209.14981, averages the latest checkpoints. Here the learning rate falls meanwhile, as its
    schedule says. Ajroldi et al., 2025, https://arxiv.org/abs/2502.06761, find that averages are best with a falling
    rate, and short ones, of about a hundredth of the run; a long one holds weights that were much worse than the last.
    The last sample is the end of the run. A skipped step is not averaged. Before the average begins validations measure
    the weights. Training uses the weights themselves and is the same with and without the average.
    A checkpoint holds the average as `state_dict` and the weights as `current_model_state`. A run that resumes with
    another max_steps, and so with other samples, begins its average again.

    Args:
        length: last part of the run: optimizer steps if it is a whole number, or a fraction of the run, 0.0 to 1.0.
        every: optimizer steps from one sample of the weights to the next.
    """

    def __init__(self, length: int | float = 0.05, every: int = 1) -> None:
        check_option(self.name, "length", length, above=0)
        check_option(self.name, "every", every, least=1)
        super().__init__()
        self.length, self.every = length, every
        self.first_step: int | None = None
        """Optimizer step of the first sample, counted from 1. None = not known yet."""
        self._resumed_step = 0
        self._saved_samples: tuple[int, int] | None = None
        """First sample and steps between two of the average that a checkpoint brought."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            # The number of batches of an epoch is not known yet.
            self.first_step = self._find_first_step(trainer, pl_module) if trainer.max_steps > 0 else None
            self._saved_samples = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.first_step is None:
            self.first_step = self._find_first_step(trainer, pl_module)
        self._resumed_step = trainer.global_step
        if self._averaging and self._saved_samples != (self.first_step, self.every):
            self._latest_update_step = 0
            rank_zero_info(
                f"{self.name}: the checkpoint's average is of other steps than this run averages, so it begins again "
                f"after step {max(self.first_step - 1, trainer.global_step)}"
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        if not self._averaging:
            rank_zero_info(
                f"{self.name} has averaged nothing up to step {trainer.global_step}, so the checkpoints hold the "
                f"weights themselves; it begins at step {self.first_step}"
            )

    def is_due(self, step: int) -> bool:
        if self.first_step is None or step < max(self.first_step, self._resumed_step + 1):
            return False
        return (step - self.first_step) % self.every == 0

    def move(self, average: list[Tensor], weights: list[Tensor], skipped: Tensor | bool) -> None:
        if isinstance(skipped, Tensor):
            self.count.add_(~skipped)
        elif skipped:
            return
        else:
            self.count.add_(1)
        lerp_by_type(average, weights, partial(self._find_way, skipped))

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "first_step": self.first_step, "every": self.every}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._saved_samples = state_dict["first_step"], state_dict["every"]

    def _find_first_step(self, trainer: Trainer, pl_module: LightningModule) -> int:
        """Return the step of the first sample; ValueError if the tail is longer than the run."""
        planned = getattr(pl_module, "planned_steps", None)
        total = count_run_steps(trainer, planned, user=self.name, way_out=f" or omit {type(self).__name__}")
        steps = max(1, resolve_steps(self.name, "length", self.length, total))
        samples = -(-steps // self.every)
        return total - (samples - 1) * self.every

    def _find_way(self, skipped: Tensor | bool, kind: torch.dtype) -> Tensor:
        """Return the fraction of the way to the weights that makes the average the mean of all samples."""
        way = torch.ones((), dtype=kind, device=self.count.device) / self.count
        return way.masked_fill(skipped, 0) if isinstance(skipped, Tensor) else way
