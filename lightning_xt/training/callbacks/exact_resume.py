from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_xt.training.saved_paths import localize_saved_paths
from lightning_xt.training.steps_done import StepsDone
from lightning_xt.training.text_module import TextModule


class ExactResume(Callback):
    """Make a resumed run draw and count like the uninterrupted run.

    Torch's generator is seeded again at every training batch, from the run's seed, the batch and the process. So
    dropout and other random numbers depend only on values that a checkpoint holds. The run's seed is torch's when the
    run begins; checkpoints keep it.
    """

    def __init__(self) -> None:
        self.seed: int | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        own = torch.initial_seed() if self.seed is None else self.seed
        self.seed = int(trainer.strategy.broadcast(own))
        fit = trainer.fit_loop
        last = fit.epoch_loop.restarted_on_train_batch_end and fit.epoch_loop.batch_progress.is_last_batch
        if fit.restarted_mid_epoch and last:
            # Lightning has counted the epoch that ended with the checkpoint, but would not count the next one as begun
            # and would repeat an epoch after a second resume of this kind.
            fit.reset_restart_stage()

    def on_train_batch_start(  # type: ignore[override]
        self, trainer: Trainer, pl_module: TextModule, batch: Any, batch_idx: int
    ) -> None:
        loop = trainer.fit_loop.epoch_loop
        if not isinstance(trainer._logger_connector, StepsDone):
            # Lightning logs a step too many when it resumes where a validation was due.
            loop._batches_that_stepped = trainer.global_step
        # `total_batch_idx` counts over the whole run, unlike `batch_idx`. A hash of integers is the same in every
        # process, and spreads neighbours over 64 bits' worth of seeds.
        seed = hash((self.seed, loop.total_batch_idx, trainer.global_rank))
        pl_module.step_seed = hash((self.seed, loop.total_batch_idx))
        # `torch.manual_seed` does no more, but looks for every kind of device there may be, which takes half a
        # millisecond.
        torch.default_generator.manual_seed(seed)
        if pl_module.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        elif pl_module.device.type == "mps":
            torch.mps.manual_seed(seed)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        localize_saved_paths(trainer, checkpoint)

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seed = state_dict["seed"]
