from lightning.pytorch import LightningModule, Trainer

from lightning_xt.training.callbacks.linear_schedule import LinearSchedule


class WeightDecaySchedule(LinearSchedule):
    """Weight decay that changes linearly over a run, as a fraction of the optimizer's.

    AdamW and MuonAdamW multiply the weight decay by the learning rate, so that it follows the schedule of the rate
    anyway; this is another factor. The fraction is that of every group of parameters that decays. The weight decay of
    the first such group is logged as `optim/weight_decay`.

    Args:
        start: fraction up to the step `begin`.
        end: fraction from the end of the change on.
        begin: step of the first change, counted from 0, if it is a whole number, or a fraction of the run, 0.0 to 1.0.
        length: optimizer steps of the change, or a fraction of the run. None = the rest of the run; 0 = at once.
    """

    metric = "optim/weight_decay"
    logged = (metric,)

    def __init__(
        self, start: float = 1.0, end: float = 0.0, begin: int | float = 0.0, length: int | float | None = None
    ) -> None:
        super().__init__(start, end, begin, length)
        self._built: list[float] = []
        """The optimizer's weight decay by group; none yet before the first batch."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        # The model will set the options that the optimizer was built with; a checkpoint has brought those of its step.
        self._built = []

    def apply(self, trainer: Trainer, fraction: float) -> float:
        (optimizer,) = trainer.optimizers
        if not self._built:
            self._built = [group.get("weight_decay", 0.0) for group in optimizer.param_groups]
        if not any(self._built):
            raise ValueError(
                f"{self.name} finds no weight decay in {type(optimizer).__name__}; set one, such as "
                "--model.optimizer.weight_decay 0.1, or omit WeightDecaySchedule"
            )
        for group, built in zip(optimizer.param_groups, self._built, strict=True):
            if built:
                group["weight_decay"] = fraction * built
        return fraction * next(filter(None, self._built))
