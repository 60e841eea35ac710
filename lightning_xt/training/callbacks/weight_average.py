import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import Tensor


class WeightAverage(WeightAveraging, ABC):
    """Base of averages of the weights, for validations, samples and the users of checkpoints.

    Training uses the weights themselves and is the same with and without the average.
    A checkpoint holds the average as `state_dict` and the weights as `current_model_state`, like Lightning's
    WeightAveraging, also one that is saved in a validation or at the end. Before the average begins it holds the
    weights only. When training ends the module has the average.
    """

    def __init__(self) -> None:
        super().__init__(use_buffers=False)
        self._raw: dict[Tensor, Tensor] | None = None
        """Trained values of each parameter, while it has those of the average."""

    @abstractmethod
    def is_due(self, step: int) -> bool:
        """Return True if the average moves after an optimizer step, counted from 1."""

    @abstractmethod
    def move(self, average: list[Tensor], weights: list[Tensor], skipped: Tensor | bool) -> None:
        """Move the average, in place, after a step that is due.

        Args:
            average: equal to the weights at its first step.
            weights: of the model.
            skipped: True if the step was skipped, perhaps known only on the device. The average stays as it is then.
        """

    @property
    def name(self) -> str:
        """Name in messages."""
        return f"trainer.callbacks: {type(self).__name__}"

    @property
    def count(self) -> Tensor:
        """Number of weights averaged so far, on the device; part of a checkpoint."""
        if self._average_model is None:
            raise RuntimeError(f"{self.name} has an average only in a fit")
        return self._average_model.n_averaged

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Create the average; ValueError if the weights are sharded or too coarse, or if there is another average."""
        if stage != "fit":
            return
        self._check_run(trainer)
        # The module is moved to its device later.
        self._device = trainer.strategy.root_device
        with warnings.catch_warnings():
            # Strategies that shard the weights are refused above.
            warnings.filterwarnings("ignore", message=".*overrides the configure_model callback.*")
            super().setup(trainer, pl_module, stage)
        # Of the weights' type, which they get later: a checkpoint's average is loaded before.
        if self._average_model is not None:
            trainer.precision_plugin.convert_module(self._average_model)
        self._raw, self._latest_update_step = None, 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        step = trainer.global_step
        # A step may take several batches.
        if self._average_model is None or step <= self._latest_update_step or not self.is_due(step):
            return
        average: list[Tensor] = [*self._average_model.module.parameters()]
        weights: list[Tensor] = [*pl_module.parameters()]
        with torch.no_grad():
            if not self._averaging:
                torch._foreach_copy_(average, weights)
                self.count.zero_()
            self.move(average, weights, getattr(pl_module, "skipped_step", False))
        self._latest_update_step = step

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A later callback may draw samples now.
        pass

    on_train_epoch_end = on_validation_epoch_start = on_validation_epoch_end

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # The last checkpoint is saved after this.
        self._show(pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._average_model = self._raw = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._average_model is None or not self._averaging:
            return
        saved = checkpoint["state_dict"]
        if self._raw is not None:
            # Under every name of a tied parameter.
            named = pl_module.named_parameters(remove_duplicate=False)
            saved |= {name: self._raw[parameter] for name, parameter in named}
        for average, buffer in zip(self._average_model.module.buffers(), pl_module.buffers(), strict=True):
            average.copy_(buffer)
        super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # Outside training the average is in place already. A checkpoint without an average begins it.
        if self._average_model is not None and "current_model_state" in checkpoint:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
            self._latest_update_step = checkpoint["global_step"]

    @property
    def _averaging(self) -> bool:
        return self._latest_update_step > 0

    def _check_run(self, trainer: Trainer) -> None:
        """Raise a ValueError if the weights cannot be averaged in this run."""
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        if others := [each for each in callbacks if isinstance(each, WeightAveraging) and each is not self]:
            raise ValueError(
                f"{self.name} and {type(others[0]).__name__} each put their average in the place of the weights, "
                "which only one can do; omit one of them"
            )
        if isinstance(trainer.strategy, (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)):
            raise ValueError(
                f"{self.name} needs all weights in each process, and {type(trainer.strategy).__name__} shards them; "
                "use --trainer.strategy ddp"
            )
        if str(trainer.precision).endswith("16-true"):
            raise ValueError(
                f"{self.name} needs weights in float32, in which its small steps are not lost, but trainer.precision "
                f"is {trainer.precision}; use --trainer.precision bf16-mixed"
            )

    def _show(self, pl_module: LightningModule) -> None:
        """Put the average into the module, if there is one yet."""
        if self._average_model is None or not self._averaging or self._raw is not None:
            return
        with _in_place():
            self._raw = {parameter: parameter.detach().clone() for parameter in pl_module.parameters()}
            torch._foreach_copy_(list(self._raw), list(self._average_model.module.parameters()))

    def _restore(self) -> None:
        """Put the trained weights back."""
        if self._raw is not None:
            with _in_place():
                torch._foreach_copy_(list(self._raw), list(self._raw.values()))
            self._raw = None


def lerp_by_type(average: list[Tensor], weights: list[Tensor], find_fraction: Callable[[torch.dtype], Tensor]) -> None:
    """Move an average towards the weights by a fraction of the way, which is known only on the device.

    Args:
        average: changed in place.
        weights: of the same shapes and types.
        find_fraction: returns the fraction as a number of a type.
    """
    by_type = {kind: find_fraction(kind) for kind in {each.dtype for each in average}}
    torch._foreach_lerp_(average, weights, [by_type[each.dtype] for each in average])


@contextmanager
def _in_place() -> Iterator[None]:
    """Allow changes of weights inside a validation, whose tensors could not be trained."""
    with torch.inference_mode(False), torch.no_grad():
        yield
