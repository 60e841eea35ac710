import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_xt.data.loader import Loader


class Throughput(Callback):
    """Logs how fast training is, validation's time left out.

    `tokens_per_second` are the tokens all processes together predict, `data_wait` is the share of the time, 0 to 1, in
    which the first process waited for its batches. Measured from one logged step to the next, so that no step waits
    for the device.
    """

    def __init__(self) -> None:
        self._since = 0.0
        self._paused = 0.0
        self._waited = 0.0
        self._tokens = 0
        self._rate: float | None = None
        self._wait: float | None = None
        self._measured = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since, self._tokens, self._rate, self._wait = time.perf_counter(), 0, None, None
        self._waited = _waited(trainer) or 0.0
        self._measured = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        tokens: Tensor = batch[1] if isinstance(batch, (tuple, list)) else batch
        # The first token of each row is predicted by nothing.
        self._tokens += tokens.shape[0] * (tokens.shape[1] - 1) * trainer.world_size
        steps = max(1, trainer.log_every_n_steps)  # type: ignore[attr-defined]
        # A step may take several batches, after most of which the count stands still.
        if trainer.global_step % steps == 0 and trainer.global_step != self._measured:
            self._measured = trainer.global_step
            self._measure(time.perf_counter(), _waited(trainer))
        if self._rate is not None:
            pl_module.log("tokens_per_second", self._rate, prog_bar=True)
        if self._wait is not None:
            pl_module.log("data_wait", self._wait)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since += time.perf_counter() - self._paused

    def _measure(self, now: float, waited: float | None) -> None:
        seconds = now - self._since
        self._rate = self._tokens / seconds
        self._since, self._tokens = now, 0
        if waited is not None:
            self._wait = (waited - self._waited) / seconds
            self._waited = waited


def _waited(trainer: Trainer) -> float | None:
    """Seconds for which training has waited for batches; None where its loader does not know."""
    loader = trainer.train_dataloader
    return loader.waited if isinstance(loader, Loader) else None
