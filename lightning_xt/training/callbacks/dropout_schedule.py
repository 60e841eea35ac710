import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lightning_xt.training.callbacks.linear_schedule import LinearSchedule
from lightning_xt.training.scheduled_dropout import ScheduledDropout


class DropoutSchedule(LinearSchedule):
    """Dropout that changes linearly over a run, as a fraction of the dropout that the model has.

    Liu et al., 2023, https://arxiv.org/abs/2303.01500, use dropout only early (start 1, end 0), against underfitting,
    or only late (start 0, end 1); Xue et al., 2023, https://arxiv.org/abs/2305.13230, begin late where texts repeat.
    The dropout of embeddings, of sublayers, in feedforwards and in adapters changes; that of attention weights, of
    memories and of a source's positions, and StochasticDepth, stay as they are. A compiled network is not compiled
    again. The value is logged as `optim/dropout`.

    Args:
        start: fraction up to the step `begin`.
        end: fraction from the end of the change on.
        begin: step of the first change, counted from 0, if it is a whole number, or a fraction of the run, 0.0 to 1.0.
        length: optimizer steps of the change, or a fraction of the run. None = the rest of the run; 0 = at once.
    """

    metric = "optim/dropout"
    logged = (metric,)

    def __init__(
        self, start: float = 0.0, end: float = 1.0, begin: int | float = 0.0, length: int | float | None = None
    ) -> None:
        super().__init__(start, end, begin, length)
        self._fraction: Tensor | None = None
        """The fraction of all dropouts, on the device."""
        self._applied: float | None = None
        self._places: list[tuple[nn.Module, str, nn.Dropout]] = []
        """Owner and name of each dropout that is scheduled, and the one that it had."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put a scheduled dropout in the place of each; ValueError if there is none, or one would reach 1."""
        if stage != "fit":
            return
        if any(isinstance(part, ScheduledDropout) for part in pl_module.modules()):
            raise ValueError(
                f"{self.name} is given twice, but a model has one schedule of its dropout; omit one of them"
            )
        self._places = [
            (owner, name, child)
            for owner in pl_module.modules()
            for name, child in owner.named_children()
            if type(child) is nn.Dropout and child.p > 0
        ]
        if not self._places:
            raise ValueError(
                f"{self.name} finds no dropout to schedule; set one, such as --model.decoder.dropout 0.1, or omit "
                "DropoutSchedule"
            )
        largest, most = max(child.p for _, _, child in self._places), max(self.start, self.end)
        if largest * most >= 1:
            raise ValueError(
                f"{self.name} takes {most:g} of a dropout of {largest:g}, which must be below 1; lower start and end"
            )
        self._fraction, self._applied = torch.ones((), device=trainer.strategy.root_device), None
        for owner, name, child in self._places:
            setattr(owner, name, ScheduledDropout(child.p, self._fraction).train(child.training))

    def apply(self, trainer: Trainer, fraction: float) -> float:
        if self._fraction is not None and fraction != self._applied:
            self._fraction.fill_(fraction)
            self._applied = fraction
        return fraction * max(child.p for _, _, child in self._places)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        # After one, Lightning tears down no callbacks.
        self._restore()

    def _restore(self) -> None:
        """Put the dropouts back that the model had."""
        for owner, name, child in self._places:
            setattr(owner, name, child.train(owner.training))
        self._places, self._fraction = [], None
