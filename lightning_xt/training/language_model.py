"""Trains a decoder as a language model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lightning_xt.core.batch import EvaluationBatch
from lightning_xt.core.inputs import Inputs, documents_of
from lightning_xt.data.prompts import Prompt
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.data.tokenizers.bytes import Bytes
from lightning_xt.models.decoder import Decoder
from lightning_xt.objectives.base import Loss, ObjectiveFactory
from lightning_xt.objectives.next_token import NextToken
from lightning_xt.training.callbacks.exact_resume import ExactResume
from lightning_xt.training.callbacks.raw_weights import RawWeights
from lightning_xt.training.checkpoint_contents import own_contents
from lightning_xt.training.checkpoint_file import OWN, check_format
from lightning_xt.training.compilation import compiled_forward
from lightning_xt.training.from_config import build, named_tokenizer
from lightning_xt.training.likelihood import LikelihoodSums, likelihood_metrics
from lightning_xt.training.optim.build import build_optimizer
from lightning_xt.training.optim.options import OptimizerOptions
from lightning_xt.training.optim.parameter_groups import OptimizerFactory, parameter_groups
from lightning_xt.training.optim.schedules.base import ScheduleFactory
from lightning_xt.training.optim.schedules.warmup_cosine import WarmupCosine
from lightning_xt.training.predictions import continue_prompts
from lightning_xt.training.sampling import Sampling


class LanguageModel(LightningModule):
    """Trains a decoder to predict the next token.

    Batches are `LongTensor (b, seq_len + 1)` for training and `EvaluationBatch` for validation and test.

    Args:
        vocab: sizes and special ids; from the command line the data's. Where it has a separator, documents are kept
            apart: attention does not cross from one to the next, and positions start anew.
        decoder: recipe of the network.
        objective: what is minimised.
        optimizer: recipe of the optimizer: MuonAdamW, or a class of torch.optim that takes groups of parameters of any
            shape, which Muon and LBFGS do not. What should not decay does not.
        schedule: recipe of the learning rate over the run, in optimizer steps. None = it stays as it is.
        compile: whether training uses torch.compile; or its keywords, such as {mode: max-autotune}.
    """

    def __init__(
        self,
        vocab: dict[str, int | None],
        decoder: Callable[[int], Decoder] = Decoder,
        objective: ObjectiveFactory = NextToken,
        optimizer: OptimizerFactory = AdamW,
        schedule: ScheduleFactory | None = WarmupCosine,
        compile: bool | dict[str, Any] = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        if "_instantiator" not in self.hparams:
            # Built from live objects, which a checkpoint that loads with `weights_only=True` cannot hold.
            self.hparams.clear()
        size = vocab["target"]
        if size is None:
            raise ValueError("model.vocab: target is None; it must be the number of different tokens")
        self.decoder = decoder(size)
        self.separator = vocab.get("separator")
        self.objective = objective()
        self.optimizer_factory, self.schedule_factory = optimizer, schedule
        self.compile_options = compile
        self.sampling = Sampling()
        """How `predict` samples."""
        self._compiled: Callable[..., Any] | None = None
        self._trained_with: dict[str, Any] | None = None

    @classmethod
    def from_config(cls, config: dict[str, Any] | str | Path) -> "LanguageModel":
        """Builds a module as the command line does, so that its checkpoints load and resume as the command line's.

        Args:
            config: a YAML file or what is in one: a run's, of which only `model` is read; its `model` mapping, with or
                without class_path; or the options alone. Without `vocab` it is a model of bytes.

        Raises:
            ValueError: an option or a class is unknown, or a value is no good.
        """
        return build(cls, config)

    def loss(self, tokens: Int[Tensor, "b m"], scored: Bool[Tensor, "b n"] | None = None) -> Float[Tensor, ""]:
        """Mean loss of predicting each of the last n of n + 1 tokens, in nats.

        Args:
            tokens: n + 1 ids per row.
            scored: which of the n targets count. None = all.
        """
        network = self._compiled if self.training and self._compiled is not None else self.decoder
        return self._score(network, tokens, scored).mean

    def _score(self, network: Callable[..., Any], tokens: Tensor, scored: Tensor | None) -> Loss:
        inputs = None
        if self.separator is not None:
            inputs = Inputs(documents=documents_of(tokens[:, :-1], self.separator))
        loss: Loss = self.objective(network, tokens, scored, inputs)
        return loss

    def setup(self, stage: str) -> None:
        if stage == "fit":
            self._compiled = compiled_forward(
                self.decoder,
                self.compile_options,
                self.trainer.strategy.root_device,
                self.trainer.accumulate_grad_batches,
            )

    def teardown(self, stage: str) -> None:
        # A compiled function neither pickles nor follows a copy of the module.
        self._compiled = None

    def configure_callbacks(self) -> list[Callback]:
        return [ExactResume(), RawWeights()]

    def training_step(self, batch: Int[Tensor, "b m"], batch_idx: int) -> Float[Tensor, ""]:
        loss = self.loss(batch)
        if self._logs_this_step:
            self.log("train/loss", loss, prog_bar=True, batch_size=len(batch))
        return loss

    def on_validation_epoch_start(self) -> None:
        self._sums = LikelihoodSums(self.device)

    def on_test_epoch_start(self) -> None:
        self._sums = LikelihoodSums(self.device)

    def validation_step(self, batch: EvaluationBatch, batch_idx: int) -> None:
        self._sums.add(self._score(self.decoder, batch.tokens, batch.scored))

    def test_step(self, batch: EvaluationBatch, batch_idx: int) -> None:
        self._sums.add(self._score(self.decoder, batch.tokens, batch.scored))

    def on_validation_epoch_end(self) -> None:
        self._report("val")

    def on_test_epoch_end(self) -> None:
        self._report("test")

    def predict_step(self, batch: list[Prompt], batch_idx: int) -> list[dict[str, Any]]:
        return continue_prompts(self.decoder, self.tokenizer, batch, self.sampling)

    def configure_optimizers(self) -> Any:
        optimizer = self._build_optimizer()
        if self.schedule_factory is None:
            self._options = OptimizerOptions(optimizer, None)
            return optimizer
        schedule = self.schedule_factory(_steps_of_run(self.trainer))
        # A function, not the schedule itself: LambdaLR would restore an object's options from a checkpoint.
        scheduler = LambdaLR(optimizer, lambda step: schedule(step))
        self._options = OptimizerOptions(optimizer, scheduler)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _build_optimizer(self) -> Optimizer:
        recipe = self.hparams.get("optimizer") or self.optimizer_factory
        path = recipe["class_path"] if isinstance(recipe, dict) else getattr(recipe, "__name__", repr(recipe))
        optimizer = build_optimizer(self.optimizer_factory, parameter_groups(self), path.rpartition(".")[2])
        scaled = str(self.trainer.precision).startswith("16")
        if scaled and self.trainer.gradient_clip_val and getattr(optimizer, "_step_supports_amp_scaling", False):
            raise ValueError(
                f"trainer.gradient_clip_val is {self.trainer.gradient_clip_val}, but in precision "
                f"{self.trainer.precision} a fused {type(optimizer).__name__} sees the gradients' true size only after "
                "clipping; set --model.optimizer.fused false, or --trainer.precision bf16-mixed"
            )
        return optimizer

    def on_train_start(self) -> None:
        # A checkpoint brought those of an earlier command.
        self._options.apply()

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips as the Trainer says, and logs the norm as it was before."""
        limit = float(gradient_clip_val or 0.0)
        by_norm = limit > 0 and gradient_clip_algorithm in (None, "norm")
        if not (limit > 0 or self._logs_this_step):
            return
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self._logs_this_step:
            self.log("optim/grad_norm", norm)
            self.log("optim/lr", optimizer.param_groups[0]["lr"])
        if by_norm:
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        elif limit > 0:
            torch.nn.utils.clip_grad_value_(parameters, limit)

    @property
    def _logs_this_step(self) -> bool:
        """Whether what is logged now is written; each value costs as much time as a small kernel, or several."""
        every = max(1, self.trainer.log_every_n_steps)  # type: ignore[attr-defined]
        return bool((self.trainer.global_step + 1) % every == 0)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[OWN] = own_contents(self, self.tokenizer)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes up the tokenizer of the data it was trained on.

        Raises:
            ValueError: a later version wrote the checkpoint, in a format that this one does not know.
        """
        own = checkpoint.get(OWN, {})
        check_format(own)
        self._trained_with = own.get("tokenizer")
        if not self.hparams:
            # `load_from_checkpoint` builds from live objects; the checkpoint knows what they were made of.
            self.hparams.update(checkpoint.get("hyper_parameters", {}))

    @property
    def tokenizer(self) -> Tokenizer:
        """What turns text into this model's ids: the data's, else that of the data it was trained on, else bytes."""
        data = None if self._trainer is None else getattr(self._trainer, "datamodule", None)
        own: Tokenizer | None = getattr(data, "tokenizer", None)
        if own is None and self._trained_with is not None:
            own = named_tokenizer(self._trained_with)
        return own or Bytes(separator=self.separator)

    def _report(self, split: str) -> None:
        sums = self.trainer.strategy.reduce(self._sums.sums, reduce_op="sum")
        for name, value in likelihood_metrics(sums).items():
            # Equal in all processes already; `sync_dist` tells Lightning so.
            self.log(f"{split}/{name}", value, prog_bar=name == "bits_per_byte", sync_dist=True)


def _steps_of_run(trainer: Trainer) -> int:
    if trainer.max_steps < 1:
        raise ValueError(
            f"trainer.max_steps is {trainer.max_steps}, but the learning rate's schedule needs the length of the run "
            "in optimizer steps; set --trainer.max_steps, or --model.schedule null for a constant learning rate"
        )
    return int(trainer.max_steps)
