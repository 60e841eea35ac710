"""Auxiliary terms of the loss in the logs."""

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lightning_xt.objectives.base import Loss


class LossTerms:
    """Auxiliary terms of the batches of one optimizer step, by name."""

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor]] = {}

    def add(self, loss: Loss) -> None:
        """Add the terms of a batch."""
        for name, value in loss.terms.items():
            self._values.setdefault(name, []).append(value.detach())

    def log(self, module: LightningModule) -> None:
        """Log the mean of each term over all batches and processes as `train/<name>`, and forget the terms."""
        for name, values in self._values.items():
            module.log(f"train/{name}", torch.stack(values).mean(), sync_dist=True)
        self._values = {}
