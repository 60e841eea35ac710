"""Options of an optimizer: those of the command hold, not those of the checkpoint that it resumes."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class OptimizerOptions:
    """Options that an optimizer was built with.

    Args:
        optimizer: just built, before a checkpoint is loaded into it.
        scheduler: sets its learning rates. None = they are constant.
    """

    def __init__(self, optimizer: Optimizer, scheduler: LambdaLR | None) -> None:
        self.optimizer, self.scheduler = optimizer, scheduler
        self._groups = [
            {name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups
        ]

    def apply(self) -> None:
        """Restore the options, and set the learning rates to those of the schedule at this step."""
        for group, built in zip(self.optimizer.param_groups, self._groups, strict=True):
            group.update(built)
        if self.scheduler is None:
            return
        self.scheduler.base_lrs = [built["initial_lr"] for built in self._groups]
        shares = [share(self.scheduler.last_epoch) for share in self.scheduler.lr_lambdas]
        for group, base, share in zip(self.optimizer.param_groups, self.scheduler.base_lrs, shares, strict=True):
            group["lr"] = base * share
