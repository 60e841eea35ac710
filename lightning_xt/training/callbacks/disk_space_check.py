import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_xt.checkpoints.checkpoint_room import format_bytes
from lightning_xt.checkpoints.runs import step_checkpoints
from lightning_xt.training.callbacks.run_folder import find_run_folder

MOMENTS = 2
"""Most values that an optimizer of others keeps for each weight, before its first step shows them: Adam's means."""


class DiskSpaceCheck(Callback):
    """Warn when a run begins whose checkpoints will not fit on the disk.

    While a checkpoint is written, the previous one still exists. `AtomicCheckpointIO` checks again at each.

    Args:
        keep: number of checkpoints of single steps that the run keeps.
    """

    def __init__(self, keep: int = 0) -> None:
        self.keep = keep

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = find_run_folder(trainer)
        if folder is None or not trainer.is_global_zero:
            return
        one = _estimate_checkpoint_bytes(trainer, pl_module)
        count = len([*self._list_missing(trainer, folder / "checkpoints")]) + 1
        free = shutil.disk_usage(folder).free
        if free < one * count:
            rank_zero_warn(
                f"{folder} has room for {format_bytes(free)}, but the run's checkpoints will take about "
                f"{format_bytes(one * count)}, {count} of {format_bytes(one)}, one being written included: make room, "
                "or start a run elsewhere with --trainer.default_root_dir"
            )

    def _list_missing(self, trainer: Trainer, folder: Path) -> Iterator[Any]:
        """List the checkpoints that the run will add."""
        for each in trainer.checkpoint_callbacks:
            if isinstance(each, ModelCheckpoint) and not (folder / f"{each.filename}.ckpt").is_file():
                yield each
        yield from range(self.keep - len(step_checkpoints(folder)))


def _estimate_checkpoint_bytes(trainer: Trainer, pl_module: LightningModule) -> int:
    """Estimate the bytes of a checkpoint: weights, their moving average and the state of the optimizer."""
    weights = sum(each.numel() * each.element_size() for each in (*pl_module.parameters(), *pl_module.buffers()))
    trained = sum(each.numel() * each.element_size() for each in pl_module.parameters() if each.requires_grad)
    average = any(isinstance(each, WeightAveraging) for each in trainer.callbacks)  # type: ignore[attr-defined]
    kept = [value for each in trainer.optimizers for state in each.state.values() for value in state.values()]
    state = sum(each.numel() * each.element_size() for each in kept if isinstance(each, Tensor))
    # Ours, and those of others that have such a method.
    own = sum(each.measure_state() for each in trainer.optimizers if hasattr(each, "measure_state"))
    # A resumed run has its optimizer state already.
    return weights * (2 if average else 1) + (state or own or MOMENTS * trained)
