"""Which options of an optimizer hold: those of the command, not of the checkpoint it resumes."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class OptimizerOptions:
    """Remembers the options an optimizer was built with.

    Args:
        optimizer: as it was built, before a checkpoint is loaded into it.
        scheduler: what sets its learning rates. None = nothing does.
    """

    def __init__(self, optimizer: Optimizer, scheduler: LambdaLR | None) -> None:
        self.optimizer, self.scheduler = optimizer, scheduler
        self._groups = [
            {name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups
        ]

    def apply(self) -> None:
        """Puts the options back, and the learning rates to where the schedule stands; what is right stays as it is."""
        for group, built in zip(self.optimizer.param_groups, self._groups, strict=True):
            group.update(built)
        if self.scheduler is None:
            return
        self.scheduler.base_lrs = [built["initial_lr"] for built in self._groups]
        shares = [share(self.scheduler.last_epoch) for share in self.scheduler.lr_lambdas]
        for group, base, share in zip(self.optimizer.param_groups, self.scheduler.base_lrs, shares, strict=True):
            group["lr"] = base * share
