import time
from types import MappingProxyType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_xt.core.batch import LaneBatch, PackedBatch
from lightning_xt.data.base import DataModule
from lightning_xt.data.loading.loader import Loader
from lightning_xt.training.metrics.utilization import count_module_flops, find_peak_flops, measure_peak_memory
from lightning_xt.training.step_boundaries import is_logged

SETTLED = 10.0
"""Seconds of training before the machine's limit is measured, which takes a moment."""

TYPES = MappingProxyType({"bf16": torch.bfloat16, "16": torch.float16, "64": torch.float64})
"""Types of products by the beginning of a precision's name; others have float32."""


class Throughput(Callback):
    """Log the speed and the memory of training, without the time of validations, as `speed/...`.

    `tokens_per_second` counts the tokens that all processes predict, padding of targets included. `step_ms` is the time
    of an optimizer step, and `data_wait` the fraction of it that the first process waited for its batches. `mfu` is the
    model FLOPs utilization: the model's FLOPs, all pairs of tokens counted, over those of dense matrix products in the
    precision of the run (a GPU's by its data sheet, a CPU's measured once). It is omitted if the limit is unknown, and
    for an encoder-decoder, whose rows have other lengths in every batch. `peak_memory_gb` is the most memory in use: by
    tensors on a GPU, by the first process on a CPU.

    Values are measured from one logged step to the next, so that no step waits for the device. The first values after a
    start include work that is done once, such as compiling.

    `train/tokens`, `train/bytes` and `train/seconds` are totals of the run, at logged steps and validations. A
    checkpoint keeps them, so that they continue in a resumed run. They are omitted if the run resumes from a checkpoint
    without them.
    """

    logged = (
        "speed/tokens_per_second",
        "speed/step_ms",
        "speed/peak_memory_gb",
        "speed/data_wait",
        "speed/mfu",
    )
    totals = ("train/tokens", "train/bytes", "train/seconds")
    """Totals, which only loggers get."""

    def __init__(self) -> None:
        self._begun = 0.0
        self._since = 0.0
        self._paused: float | None = None
        self._waited = 0.0
        self._tokens = 0
        self._steps = 0
        self._measured = 0
        self._ideal_seconds_per_token: float | None = None
        self._total: dict[str, Any] = {}
        """Tokens and seconds of the run until the last measurement; empty if unknown."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begun = self._since = time.perf_counter()
        self._tokens = 0
        self._waited = _read_wait(trainer) or 0.0
        self._measured = self._steps = trainer.global_step
        if not trainer.global_step:
            self._total = {"tokens": 0, "seconds": 0.0}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        tokens = find_targets(batch)
        # Nothing predicts the first token of each row.
        self._tokens += tokens.shape[0] * (tokens.shape[1] - 1) * trainer.world_size
        # A step may take several batches; most of them do not end it.
        if is_logged(trainer, trainer.global_step) and trainer.global_step != self._measured:
            self._measured = trainer.global_step
            rates = self._measure(time.perf_counter(), trainer, pl_module, tokens.shape[1] - 1)
            for name, value in rates.items():
                pl_module.log(name, value, prog_bar=name in ("speed/tokens_per_second", "speed/mfu"))
            self._log_totals(trainer, self._since)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._paused = time.perf_counter()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking and self._paused is not None:
            self._log_totals(trainer, self._paused)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._paused is not None:
            self._since += time.perf_counter() - self._paused
            self._paused = None

    def state_dict(self) -> dict[str, Any]:
        """Return the totals of the run for a checkpoint."""
        return self._count(time.perf_counter() if self._paused is None else self._paused)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._total = dict(state_dict)

    def _count(self, now: float) -> dict[str, Any]:
        """Count the tokens and seconds of the run until now; empty if unknown."""
        if not self._total:
            return {}
        seconds = self._total["seconds"] + now - self._since
        return {"tokens": self._total["tokens"] + self._tokens, "seconds": seconds}

    def _log_totals(self, trainer: Trainer, now: float) -> None:
        """Log the totals, which the module would round to 24 bits."""
        if not (found := self._count(now)):
            return
        values = {"train/tokens": found["tokens"], "train/seconds": found["seconds"]}
        data = getattr(trainer, "datamodule", None)
        size = data.bytes_per_token() if isinstance(data, DataModule) else None
        if size is not None:
            values["train/bytes"] = found["tokens"] * size
        for logger in trainer.loggers:
            logger.log_metrics(values, trainer.global_step)

    def _measure(self, now: float, trainer: Trainer, pl_module: LightningModule, seq_len: int) -> dict[str, float]:
        seconds, waited = now - self._since, _read_wait(trainer)
        rate, steps = self._tokens / seconds, trainer.global_step - self._steps
        rates = {
            "speed/tokens_per_second": rate,
            "speed/step_ms": 1000 * seconds / steps,
            "speed/peak_memory_gb": measure_peak_memory(pl_module.device) / 1e9,
        }
        if waited is not None:
            rates["speed/data_wait"] = (waited - self._waited) / seconds
            self._waited = waited
        if self._ideal_seconds_per_token is None and now - self._begun > SETTLED:
            self._ideal_seconds_per_token = _ideal_seconds_per_token(trainer, pl_module, seq_len)
        if self._ideal_seconds_per_token:
            rates["speed/mfu"] = rate * self._ideal_seconds_per_token
        self._total = self._count(now)
        self._tokens, self._steps = 0, trainer.global_step
        # Not earlier, because measuring the machine's limit is not part of a step.
        self._since = time.perf_counter()
        return rates


def find_targets(batch: Any) -> Tensor:
    """Return the tokens of a batch that a model predicts, with the first one of each row, which nothing predicts."""
    if isinstance(batch, dict):
        batch = batch["tokens"] if "tokens" in batch else batch["tgt"]
    if isinstance(batch, (LaneBatch, PackedBatch)):
        batch = batch.tokens
    # The targets of pairs; loaders of other data may put tokens into a list.
    tokens: Tensor = batch[min(1, len(batch) - 1)] if isinstance(batch, (tuple, list)) else batch
    return tokens


def _read_wait(trainer: Trainer) -> float | None:
    """Return the seconds that training has waited for batches; None if its loader does not count them."""
    loader = trainer.train_dataloader
    return loader.waited if isinstance(loader, Loader) else None


def _ideal_seconds_per_token(trainer: Trainer, pl_module: LightningModule, seq_len: int) -> float:
    """Return the seconds of a token at the limit of all machines; 0 if the limit is unknown."""
    dtype = next((kind for name, kind in TYPES.items() if str(trainer.precision).startswith(name)), torch.float32)
    peak = find_peak_flops(pl_module.device, dtype)
    flops = count_module_flops(pl_module, seq_len)
    return 0.0 if peak is None or flops is None else flops / (peak * trainer.world_size)
