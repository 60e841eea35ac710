"""Base of the LightningModules: optimizer, schedule, clipping, logs, checkpoints, compiling."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.model_helpers import _restricted_classmethod
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lightning_xt.checkpoints.migrations import METADATA_KEY, migrate
from lightning_xt.core.inputs import ReadsInput
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.objectives.base import Objective
from lightning_xt.system.imports import guarded_imports
from lightning_xt.training.callback_checks import check_callbacks, check_monitors
from lightning_xt.training.callbacks.exact_resume import ExactResume
from lightning_xt.training.callbacks.non_finite import NonFinite, check_weights
from lightning_xt.training.callbacks.restore_trained_weights import RestoreTrainedWeights
from lightning_xt.training.compilation import check_compile_options, compile_forward, release_blocks
from lightning_xt.training.from_config import build, build_tokenizer
from lightning_xt.training.input_checks import check_inputs
from lightning_xt.training.loss_terms import LossTerms
from lightning_xt.training.optim.build import OptimizerOptions, build_scaled
from lightning_xt.training.optim.parameter_groups import OptimizerFactory
from lightning_xt.training.optim.schedules.base import ScheduleFactory
from lightning_xt.training.run_metadata import run_metadata
from lightning_xt.training.step_boundaries import count_run_steps, is_logged
from lightning_xt.training.step_skipping import drop_first_momentum, nan_if_not_finite, skip_step, total_norm, unscale
from lightning_xt.training.strategies.same_processes import compare_processes
from lightning_xt.training.strategies.sharding import refuse_parameters, shard
from lightning_xt.training.text_module import TextModule

SET_IN_STEPS = frozenset(
    ("_current_fx_name", "phase", "step_seed", "step_batches", "skipped_step", "faulty_step", "_lost")
)
"""Attributes that each training step sets, the first one by Lightning at each hook; not parts of the network."""


class TransformerModule(TextModule):
    """Base of the models: a LightningModule that trains a network. Subclasses add the network, batches and texts."""

    objective: Objective
    default_vocab: ClassVar[dict[str, int | None]]
    """Vocabulary for a config without one."""
    foreign_data: ClassVar[Mapping[type, str]]
    """Data that the model cannot read: their classes, each with what they serve and the way out."""
    given_inputs: ClassVar[tuple[str, ...]] = ()
    """Inputs besides the tokens that the model gives its network."""
    logged: ClassVar[tuple[str, ...]] = ("train/loss", "optim/grad_norm", "optim/lr")
    """Metrics that a fit logs, which callbacks may monitor."""

    def __init__(
        self, *, optimizer: OptimizerFactory, schedule: ScheduleFactory | None, compile: bool | dict[str, Any]
    ) -> None:
        super().__init__()
        self.optimizer_factory, self.schedule_factory = optimizer, schedule
        check_compile_options(compile)
        self.compile_options = compile
        self.own_callbacks: tuple[type[Callback], ...] = (ExactResume, RestoreTrainedWeights, NonFinite)
        """Callbacks without which a run neither resumes exactly nor stops at NaN, for a Trainer without them."""
        self.skipped_step: Tensor | bool = False
        """True if the last optimizer step was skipped because its gradients were not finite."""
        self.faulty_step: Tensor | bool = False
        """True if it was skipped for a fault, and not only because float16 was finding the scale of its loss."""
        self._lost: Tensor | None = None
        """In float16, True if a loss of the step so far was not finite."""
        self.planned_steps: int | None = None
        """Optimizer steps of the run, for the schedule. None = those of the Trainer, fewer in a `fast_dev_run`."""
        self.step_batches = 0
        """Batches of the optimizer step so far; an epoch may end with fewer than `accumulate_grad_batches`."""
        self._compiled: Callable[..., Any] | None = None
        self.loss_terms = LossTerms()
        self._trained_with: dict[str, Tokenizer] = {}
        self._trained_length: int | None = None

    @classmethod
    def from_config(cls, config: dict[str, Any] | str | Path) -> Self:
        """Build a model as the command line does, so that its checkpoints load and resume as the command line's.

        Args:
            config: a YAML file or its contents: a run's config, of which only `model` is read; a `model` mapping, with
                or without class_path; or only the options. Without `vocab` the model reads bytes.

        Raises:
            ValueError: an option or a class is unknown, or a value is invalid.
            MemoryError: its parameters are more than the machine has free.
        """
        return build(cls, config, cls.default_vocab)

    # Like Lightning's, it refuses an instance, which it would not change.
    @_restricted_classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: N805
        """Build a model from a checkpoint. Lightning's documentation lists the options.

        Raises:
            ValueError: the checkpoint names something that may not be imported.
        """
        with guarded_imports():
            return super().load_from_checkpoint(*args, **kwargs)

    @property
    def needed_inputs(self) -> dict[str, str]:
        parts = [part for part in self.network.modules() if isinstance(part, ReadsInput)]
        needed = {each.needed_input: type(each).__name__ for each in parts}
        return {name: part for name, part in needed.items() if name is not None and name not in self.given_inputs}

    def __setattr__(self, name: str, value: Any) -> None:
        if name in SET_IN_STEPS:
            # Torch would look for parameters, buffers and modules among them.
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def setup(self, stage: str) -> None:
        """Compile the network; ValueError if the data are for another kind of model, or a part needs other inputs."""
        data = self.data_module
        for kind, instead in self.foreign_data.items():
            if isinstance(data, kind):
                raise ValueError(
                    f"--model {type(self).__name__} cannot read --data {type(data).__name__}, which serves {instead}"
                )
        check_inputs(self.needed_inputs, self.data_inputs)
        compare_processes(self.trainer, {"the hash of the data": str(getattr(data, "content_hash", None))[:16]})
        if self.trainer.precision == "64-true":
            # Lightning does so after it has loaded a checkpoint's weights, which would lose half their bits.
            self.double()
        if stage == "fit":
            self._compiled = compile_forward(
                self.network,
                self.compile_options,
                self.trainer.strategy.root_device,
                self.trainer.accumulate_grad_batches,
                sharded=self.device_mesh is not None,
            )

    def configure_model(self) -> None:
        """Shard the weights if the strategy does."""
        if self.device_mesh is not None:
            refuse_parameters(self.objective)
            shard(self.network, self.device_mesh["data_parallel"])

    def teardown(self, stage: str) -> None:
        # A compiled function cannot be pickled, and a copy of the module would call the original.
        self._compiled = None
        release_blocks(self.network)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # The command line's recipes refer to the Trainer, its processes and the data: a copy shares them.
        memo |= {id(recipe): recipe for recipe in (self.optimizer_factory, self.schedule_factory)}
        memo[id(self)] = copied = type(self).__new__(type(self))
        vars(copied).update(deepcopy(self.__getstate__(), memo))
        return copied

    def configure_callbacks(self) -> list[Callback]:
        given: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        check_callbacks(given, self.trainer)
        added = [kind() for kind in self.own_callbacks if not any(isinstance(each, kind) for each in given)]
        check_monitors([*given, *added], self)
        return added

    def configure_optimizers(self) -> Any:
        optimizer = self._build_optimizer()
        if self.schedule_factory is None:
            self._options = OptimizerOptions(optimizer, None)
            return optimizer
        schedule = self.schedule_factory(count_run_steps(self.trainer, self.planned_steps))
        # A function, because LambdaLR would restore the options of an object from a checkpoint.
        scheduler = LambdaLR(optimizer, lambda step: schedule(step))
        self._options = OptimizerOptions(optimizer, scheduler)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _build_optimizer(self) -> Optimizer:
        recipe = self.hparams.get("optimizer") or self.optimizer_factory
        path = recipe["class_path"] if isinstance(recipe, dict) else getattr(recipe, "__name__", repr(recipe))
        optimizer = build_scaled(self.optimizer_factory, self, path.rpartition(".")[2])
        scaled = str(self.trainer.precision).startswith("16")
        if scaled and self.trainer.gradient_clip_val and getattr(optimizer, "_step_supports_amp_scaling", False):
            raise ValueError(
                f"trainer.gradient_clip_val is {self.trainer.gradient_clip_val}, but in precision "
                f"{self.trainer.precision} a fused {type(optimizer).__name__} sees the gradients' true size only after "
                "clipping; set --model.optimizer.fused false, or --trainer.precision bf16-mixed"
            )
        return optimizer

    def on_train_start(self) -> None:
        # A checkpoint has brought the options of an earlier command.
        self._options.apply()
        # An earlier fit may have stopped between two batches of a step.
        self._lost, self.step_batches, self.loss_terms = None, 0, LossTerms()
        check_weights(self.trainer, dict(self.named_parameters()), starts=True)
        if self.objective.training_only is not None:
            rank_zero_info(
                f"train/loss includes {self.objective.training_only}, which val/loss does not; compare it with "
                "train/loss of other runs only"
            )

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Backpropagate. Gradients become NaN if the loss is not finite."""
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            lost = ~loss.detach().isfinite()
            self._lost = lost if self._lost is None else self._lost | lost
        self.step_batches += 1
        super().backward(nan_if_not_finite(loss), *args, **kwargs)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as the Trainer says, log the norm before that, and skip the step if the norm is not finite."""
        limit = float(gradient_clip_val or 0.0)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if self.step_batches not in (0, full := self.trainer.accumulate_grad_batches):
            # Lightning has divided by the batches of a full step.
            gradients = [each.grad for each in parameters if each.grad is not None]
            torch._foreach_mul_(gradients, full / self.step_batches)
        self.step_batches = 0
        norm = total_norm(parameters)
        if self.logs_this_step:
            self.log("optim/grad_norm", unscale(norm, optimizer, self.trainer.precision_plugin))
            self.log("optim/lr", optimizer.param_groups[0]["lr"])
        if self._lost is None:
            self.skipped_step = self.faulty_step = skip_step(optimizer, norm)
        else:
            # The scaler of float16 skips steps itself, some of them only to find its scale.
            self.skipped_step = ~norm.isfinite()
            drop_first_momentum(optimizer, self.skipped_step)
            self.faulty_step = self.trainer.strategy.reduce(self._lost.float(), reduce_op="sum") > 0
            self._lost = None
        if self.skipped_step is True:
            # There are no gradients any more.
            return
        if limit > 0 and gradient_clip_algorithm in (None, "norm"):
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        elif limit > 0:
            torch.nn.utils.clip_grad_value_(parameters, limit)

    @property
    def logs_this_step(self) -> bool:
        """True if values logged in this step are written. Each value costs the time of a small kernel or several."""
        return is_logged(self.trainer, self.trainer.global_step + 1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self._trainer is not None:
            weights = dict(self.named_parameters())
            # An average has their names.
            saved = {f"saved {name}": each for name, each in checkpoint["state_dict"].items() if name in weights}
            check_weights(self._trainer, weights | saved)
        checkpoint[METADATA_KEY] = run_metadata(self, self.tokenizers) | {"trained_length": self.trained_length}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the tokenizers of the training data; ValueError for a checkpoint of a format that is not read."""
        # Needed if Lightning read the file without `Checkpoint`.
        migrate(checkpoint)
        metadata = checkpoint.get(METADATA_KEY) or {}
        self.restore_tokenizers(metadata.get("tokenizers") or {})
        self._trained_length = metadata.get("trained_length")
        if not self.hparams:
            # `load_from_checkpoint` builds from live objects, and the checkpoint has their options.
            self.hparams.update(checkpoint.get("hyper_parameters", {}))

    def restore_tokenizers(self, configs: dict[str, dict[str, Any]]) -> None:
        """Build the tokenizers that the weights were trained with, from their configs by use."""
        self._trained_with = {use: build_tokenizer(config) for use, config in configs.items()}

    def find_tokenizer(self, use: str, own: str) -> Tokenizer | None:
        """Return the tokenizer of the training data for a use, else attribute `own` of the current data; or None."""
        if use in self._trained_with:
            return self._trained_with[use]
        found: Tokenizer | None = getattr(self.data_module, own, None)
        return found

    @property
    def trained_length(self) -> int | None:
        """Tokens of the longest sequence of the current data, else of those that the weights were trained on."""
        found: int | None = getattr(self.data_module, "trained_length", None)
        return self._trained_length if found is None else found

    def remember_config(self) -> None:
        """Let checkpoints keep the options. Call it in a constructor, right after `save_hyperparameters`."""
        if "_instantiator" not in self.hparams:
            # Live objects do not load with `weights_only=True`.
            self.hparams.clear()


def require_size(vocab: dict[str, int | None], name: str) -> int:
    """Return a size of a vocabulary; ValueError if it is missing."""
    size = vocab.get(name)
    if size is None:
        raise ValueError(f"model.vocab: {name} is None; it must be the number of different tokens")
    return size
