"""Mean loss over the targets of an optimizer step, whose batches may have different numbers of them."""

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim import Optimizer

from lightning_xt.objectives.base import Loss

NEUTRAL = 4096.0
"""Divisor of a batch's summed loss in several processes, which must have one; it keeps the loss in the range of 16-bit
numbers, and is multiplied back before the step."""


class StepMean:
    """Losses of the batches of an optimizer step, weighted by their targets over batches and processes."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None
        """Number of targets so far, and the sum of their losses."""
        self._divisor: Tensor | float = NEUTRAL
        """Divisor of each batch's summed loss in this step."""

    @property
    def is_empty(self) -> bool:
        """True if the step has no batches so far."""
        return self._sums is None

    def add(self, loss: Loss, processes: int) -> Tensor:
        """Add a batch, of one of several processes; return the loss to backpropagate."""
        precise = torch.promote_types(loss.minimised.dtype, torch.float32)
        count = loss.count.to(precise)
        if self._sums is None:
            # One process keeps the bits of batches with as many targets as the first one.
            self._divisor = count.clamp(min=1) if processes == 1 else NEUTRAL
        sums = torch.stack((count, loss.total.detach().to(precise)))
        self._sums = sums if self._sums is None else self._sums + sums
        return loss.minimised * (count / self._divisor)

    def scale(self, module: LightningModule, optimizer: Optimizer, batches: int) -> Tensor:
        """Scale gradients of sums, which were divided by batches and processes, to those of the mean; return the mean.

        All processes must call it, before gradients are clipped. Begins the next step.

        Args:
            module: the trained module.
            optimizer: the optimizer of the gradients.
            batches: number of batches of the step in this process.
        """
        trainer = module.trainer
        count, total = trainer.strategy.reduce(self._sums, reduce_op="sum")
        # `configure_gradient_clipping` then turns Lightning's division, by a full step's batches, into one by these.
        if (parts := batches * trainer.world_size) > 1:
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            torch._foreach_mul_(gradients, self._divisor * parts / count.clamp(min=1))
        self._sums = None
        return total / count.clamp(min=1)
