"""Lightning's own Trainer with nothing but a training step, in slices: what a step of any Trainer takes at least."""

import os
import traceback
from collections.abc import Callable, Iterator
from threading import Semaphore, Thread
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn


class BarebonesTrainer:
    """`Trainer(barebones=True)` in a separate thread, which trains a number of steps whenever it is called.

    Barebones is Lightning's name for no logs, checkpoints, progress bar and validations.

    Args:
        loss: of a batch.
        model: whose parameters are trained by fused AdamW, their gradients clipped to a norm of 1.
        feed: the batches.
        device: type of the device.
    """

    def __init__(self, loss: Callable[[Tensor], Tensor], model: nn.Module, feed: Iterator[Tensor], device: str) -> None:
        self._module, self._feed = BarebonesModule(loss, model), feed
        self._go, self._done = Semaphore(0), Semaphore(0)
        self._left, self._device = 0, device
        Thread(target=self._train, args=(torch.get_num_threads(),), daemon=True).start()
        self._done.acquire()

    def __call__(self, steps: int) -> None:
        self._left += steps
        self._go.release()
        self._done.acquire()

    def __iter__(self) -> Iterator[Tensor]:
        while True:
            if not self._left:
                self._done.release()
                self._go.acquire()
            self._left -= 1
            yield next(self._feed)

    def _train(self, threads: int) -> None:
        # Each thread has its own number.
        torch.set_num_threads(threads)
        accelerator = "gpu" if self._device == "cuda" else "cpu"
        try:
            trainer = Trainer(
                accelerator=accelerator,
                devices=1,
                barebones=True,
                max_steps=2**40,
                precision="bf16-mixed",
                gradient_clip_val=1.0,
            )
            trainer.fit(self._module, self)
        except BaseException:
            # The other thread would wait forever.
            traceback.print_exc()
            os._exit(1)


class BarebonesModule(LightningModule):
    """Module of a loss, with the optimizer of the other legs."""

    def __init__(self, loss: Callable[[Tensor], Tensor], model: nn.Module) -> None:
        super().__init__()
        self.loss, self.model = loss, model

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.loss(batch)

    def configure_gradient_clipping(self, optimizer: Any, gradient_clip_val: Any = None, **kwargs: Any) -> None:
        # Lightning's own refuses a fused optimizer.
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), gradient_clip_val)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=True)
