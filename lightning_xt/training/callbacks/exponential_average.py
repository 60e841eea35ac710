import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_xt.system.option_checks import check_option


class ExponentialAverage(WeightAveraging):
    """Exponential moving average of the weights, for validations, samples and the users of checkpoints.

    Polyak and Juditsky, 1992, average the weights of all steps equally. This exponential form is common in training:
    each optimizer step moves the average by 1 - decay of the way to the weights. A skipped step does not move it.
    Training uses the weights themselves and is the same with and without the average.
    A checkpoint holds the average as `state_dict` and the weights as `current_model_state`, like Lightning's
    WeightAveraging, also one that is saved in a validation or at the end. When training ends the module has the
    average.

    Args:
        decay: fraction of the average that stays at each step, 0 to 1; 0.999 averages about the last 1000 steps.
        start_step: optimizer steps before the average begins; until then it equals the weights.
    """

    def __init__(self, decay: float = 0.999, start_step: int = 0) -> None:
        check_option("trainer.callbacks: ExponentialAverage", "decay", decay, least=0, below=1)
        check_option("trainer.callbacks: ExponentialAverage", "start_step", start_step, least=0)
        super().__init__(use_buffers=False)
        self.decay, self.start_step = decay, start_step
        self._raw: dict[Tensor, Tensor] | None = None
        """Trained values of each parameter, while it has those of the average."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Create the average; ValueError if the weights are sharded, or too coarse to be averaged."""
        if stage != "fit":
            return
        if isinstance(trainer.strategy, (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)):
            raise ValueError(
                f"trainer.callbacks: ExponentialAverage needs all weights in each process, and "
                f"{type(trainer.strategy).__name__} shards them; use --trainer.strategy ddp"
            )
        if str(trainer.precision).endswith("16-true"):
            raise ValueError(
                f"trainer.callbacks: ExponentialAverage needs weights in float32, in which its small steps are not "
                f"lost, but trainer.precision is {trainer.precision}; use --trainer.precision bf16-mixed"
            )
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
        steps, span = trainer.max_steps - self.start_step, 1 / (1 - self.decay)
        if 0 < steps < span:
            rank_zero_info(
                f"trainer.callbacks: ExponentialAverage with decay {self.decay:g} averages about {span:,.0f} steps, "
                f"but the run averages only {steps:,}, so validations measure mostly its first weights; lower the "
                f"decay, such as to {max(0.0, 1 - 5 / steps):.2g}, or train for longer"
            )

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        step = trainer.global_step
        # A step may take several batches.
        if self._average_model is None or step <= max(self._latest_update_step, self.start_step):
            return
        average: list[Tensor] = [*self._average_model.module.parameters()]
        weights: list[Tensor] = [*pl_module.parameters()]
        skipped: Tensor | bool = getattr(pl_module, "skipped_step", False)
        with torch.no_grad():
            if not self._averaging:
                torch._foreach_copy_(average, weights)
            elif isinstance(skipped, Tensor):
                # Known only on the device, for which training must not wait.
                by_type = {
                    kind: torch.full((), 1 - self.decay, dtype=kind, device=skipped.device).masked_fill(skipped, 0)
                    for kind in {each.dtype for each in average}
                }
                torch._foreach_lerp_(average, weights, [by_type[each.dtype] for each in average])
            elif not skipped:
                torch._foreach_lerp_(average, weights, 1 - self.decay)
        self._average_model.n_averaged.add_(1)
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


@contextmanager
def _in_place() -> Iterator[None]:
    """Allow changes of weights inside a validation, whose tensors could not be trained."""
    with torch.inference_mode(False), torch.no_grad():
        yield
