"""Training that waits to be asked for its next steps, so that two trainings can take turns."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Connection
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_xt.data.base import DataModule
from lightning_xt.training.callbacks.throughput import find_targets
from lightning_xt.training.metrics.step_memory import record_allocations
from lightning_xt.training.metrics.utilization import count_module_flops
from lightning_xt.training.network_adaptation import count_trained
from lightning_xt.training.step_boundaries import at_step_boundary

FACTS = "facts"
"""Request for the facts of the model, which takes a step; another request is a number of steps."""


class PacedSteps(Callback):
    """Callback that trains as many steps as it is asked for, and sends their seconds.

    Seconds are the processor time of one thread where a CPU trains by one, so that other programs matter little, else
    those of the clock.

    Args:
        connection: to the process that asks.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._left = self._steps = self._tokens = 0
        self._begun = 0.0
        self._recording: ExitStack | None = None
        self._clock: Callable[[], float] = time.perf_counter

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if pl_module.device.type == "cpu" and torch.get_num_threads() == 1:
            self._clock = time.process_time

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._left:
            return
        request = self._connection.recv()
        if request == FACTS:
            self._left, self._recording = 1, ExitStack()
            self._allocated = self._recording.enter_context(record_allocations(pl_module.device))
        else:
            self._left = request
        self._begun = self._read_clock(pl_module.device)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        tokens = find_targets(batch)
        self._tokens += tokens.shape[0] * (tokens.shape[1] - 1)
        if not at_step_boundary(trainer):
            return
        self._left, self._steps = self._left - 1, self._steps + 1
        if self._recording is not None:
            self._recording.close()
            self._recording = None
            self._send(self._describe(trainer, pl_module, tokens.shape[1] - 1))
        elif not self._left:
            self._send(self._read_clock(pl_module.device) - self._begun)

    def _read_clock(self, device: torch.device) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return self._clock()

    def _send(self, value: Any) -> None:
        self._connection.send((False, value))

    def _describe(self, trainer: Trainer, module: LightningModule, seq_len: int) -> dict[str, Any]:
        """Return what a step costs besides time, and what runs must share."""
        data: Any = getattr(trainer, "datamodule", None)
        size = data.bytes_per_token() if isinstance(data, DataModule) else None
        flops = count_module_flops(module, seq_len)
        weights = list(module.parameters())
        states = [each for state in trainer.optimizers[0].state.values() for each in state.values()]
        held = [each for each in (*weights, *states) if isinstance(each, torch.Tensor)]
        tokens = self._tokens / self._steps
        return {
            "parameters": count_trained(module)[1],
            "tokens_per_step": tokens,
            "bytes_per_step": None if size is None else tokens * size,
            "flops_per_step": None if flops is None else tokens * flops,
            "memory": sum(each.numel() * each.element_size() for each in held) + self._allocated.peak,
            "data": hash_files(data),
            "optimizer": dict(module.hparams).get("optimizer"),
        }


def hash_files(data: Any) -> str | None:
    """Return the hash of data that all seeds share and that may change; None for others."""
    return None if not isinstance(data, DataModule) or data.is_generated else data.content_hash
