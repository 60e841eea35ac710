from typing import Any

from torch import Tensor

from lightning_xt.training.lightning_internals import ResultCollection


class StepResults(ResultCollection):
    """Logged values of training; logging a value of a step again, as before, only replaces it.

    Lightning builds and compares a description of the value, and moves all state of its metric to its device, which
    takes longer than a layer of a small model.
    """

    def __init__(self) -> None:
        super().__init__(training=True)
        self._options: dict[str, dict[str, Any]] = {}
        """Options of the latest call for each value, by its key."""

    def log(self, fx: str, name: str, value: Any, **options: Any) -> None:
        """Log a value; see `LightningModule.log`."""
        key = f"{fx}.{name}"
        metric = self.get(key)
        # Values of several processes and of whole epochs are collected, and a graph may be kept.
        collected = options.get("on_epoch", True) or options.get("sync_dist") or options.get("enable_graph")
        again = not collected and self.dataloader_idx is None and self._options.get(key) == options
        if metric is None or not again or not isinstance(value, Tensor) or value.device != metric.value.device:
            super().log(fx, name, value, **options)
            self._options[key] = options
            return
        metric.forward(value.detach(), 1)
        metric.has_reset = False
