from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from lightning_xt.data.base import DataModule
from lightning_xt.training.callbacks.run_folder import find_run_folder
from lightning_xt.training.network_adaptation import count_trained
from lightning_xt.training.text_module import TextModule


class StartBanner(Callback):
    """Print four lines before training: the model, the device, the data and the folder of the run."""

    def __init__(self) -> None:
        self._announced = False

    def announce(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the lines that need no data, which may take long to read."""
        self._announced = True
        trained, parameters = count_trained(pl_module)
        part = "" if trained == parameters else f", of which {trained:,} train ({trained / parameters:.2%})"
        _print("model", f"{type(pl_module).__name__}, {parameters:,} parameters{part}")
        _print("device", f"{_describe_devices(trainer)}, precision {trainer.precision}")

    def setup(self, trainer: Trainer, pl_module: TextModule, stage: str) -> None:  # type: ignore[override]
        """Print the other lines, once the data are read and the run has its folder."""
        if stage != "fit":
            return
        if not self._announced:
            self.announce(trainer, pl_module)
        data: Any = pl_module.data_module
        text = type(data).__name__
        if isinstance(data, DataModule) and (size := data.describe_size(trainer.accumulate_grad_batches)):
            text += f", {size}"
        if trainer.max_steps > 0:
            # The training data, which may have epochs, are not open yet.
            most = "" if (trainer.max_epochs or -1) < 1 or trainer.fast_dev_run else "at most "  # type: ignore[attr-defined]
            text += f", {most}{_count(trainer.max_steps, 'step')}"
        _print("data", text)
        _print("run", str(find_run_folder(trainer) or "not saved"))


def announce(trainer: Trainer, pl_module: LightningModule) -> None:
    """Print the banner's first lines, before the data are read."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, StartBanner):
            callback.announce(trainer, pl_module)


@rank_zero_only
def _print(name: str, text: str) -> None:
    print(f"{f'{name}:':8}{text}", flush=True)


def _describe_devices(trainer: Trainer) -> str:
    device = trainer.strategy.root_device
    if device.type == "cuda":
        name = f"cuda ({torch.cuda.get_device_name(device)})"
    elif device.type == "cpu":
        name = f"cpu ({_count(torch.get_num_threads(), 'thread')})"
    else:
        name = device.type
    return name if trainer.world_size == 1 else f"{trainer.world_size} processes on {name}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' if number > 1 else ''}"
