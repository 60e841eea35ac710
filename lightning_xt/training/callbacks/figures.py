from collections.abc import Sequence
from typing import Any, Literal, get_args

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch.optim import Optimizer

from lightning_xt.data.loading.isolated_rng import IsolatedRng
from lightning_xt.system.messages import explain_unknown
from lightning_xt.system.option_checks import check_option
from lightning_xt.training.display_faults import DisplayFaults
from lightning_xt.training.figures.embeddings import log_embeddings
from lightning_xt.training.figures.example import Example
from lightning_xt.training.figures.forward_figures import log_attention, log_losses
from lightning_xt.training.figures.step_sizes import StepSizes
from lightning_xt.training.loggers.media import log_table
from lightning_xt.training.text_module import TextModule

Shown = Literal["attention", "losses", "pairs", "embeddings"]
BATCHES = 16
"""Batches of a validation from which a sequence is taken."""
NAMES: tuple[Shown, ...] = get_args(Shown)


class Figures(Callback):
    """Draw figures of the model for the loggers of a run, such as TensorBoard. Training is the same without them.

    In validations, of the first sequence of the validation split, or of a long pair among its first:
    `attention`: the weights of each layer, head by head; of an encoder-decoder also those to the source, and their mean
    over heads as an alignment of source and predicted target.
    `losses`: the text, each token coloured by its loss.
    `pairs`: a table of sources, targets and predictions.
    When training ends, `embeddings`: the vectors of the tokens, with their labels.
    A figure that cannot be drawn is reported once, and training continues.

    Args:
        show: names of the figures to draw.
        every: validations between two drawings; the last one of a run is always drawn.
        attention_tokens: most tokens of a sequence in a figure of attention.
        loss_tokens: most tokens of a sequence in a figure of losses.
        step_sizes_every: optimizer steps between two measurements of each layer: histograms of its gradients and of
            its update, and the ratio of the norm of its update to that of its weights. None = never.
    """

    def __init__(
        self,
        show: Sequence[Shown] = NAMES,
        *,
        every: int = 1,
        attention_tokens: int = 32,
        loss_tokens: int = 512,
        step_sizes_every: int | None = None,
    ) -> None:
        for unknown in set(show) - set(NAMES):
            raise ValueError(f"figures.show: {explain_unknown('figure', unknown, NAMES)}")
        check_option("figures", "every", every, least=1)
        check_option("figures", "attention_tokens", attention_tokens, least=1)
        check_option("figures", "loss_tokens", loss_tokens, least=1)
        check_option("figures", "step_sizes_every", step_sizes_every, least=1)
        self.show, self.every, self.step_sizes_every = show, every, step_sizes_every
        self.attention_tokens, self.loss_tokens = attention_tokens, loss_tokens
        self._obstacle: str | None = None
        self._examples: tuple[Example, Example] | None = None
        """Sequences for attention and for losses."""
        self._sizes: StepSizes | None = None
        self._faults = DisplayFaults("figures")

    def on_fit_start(self, trainer: Trainer, pl_module: TextModule) -> None:  # type: ignore[override]
        self._obstacle = None
        if pl_module.device_mesh is not None:
            self._obstacle = "the weights are sharded over processes"
        for name, part in pl_module.needed_inputs.items():
            self._obstacle = f"{part} needs the input {name}"
        if self._obstacle is not None:
            rank_zero_info(f"figures draws nothing, because {self._obstacle}")

    def on_before_optimizer_step(  # type: ignore[override]
        self, trainer: Trainer, pl_module: TextModule, optimizer: Optimizer
    ) -> None:
        every = self.step_sizes_every
        if every is not None and self._draws(trainer) and (trainer.global_step + 1) % every == 0:
            with self._faults.tolerate():
                self._sizes = StepSizes(dict(pl_module.named_parameters()))

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        sizes, self._sizes = self._sizes, None
        if sizes is not None:
            with self._faults.tolerate():
                sizes.log(trainer.loggers, trainer.global_step)

    def on_validation_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: TextModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        if batch_idx >= BATCHES or not self._draws(trainer) or not self._is_due(trainer):
            return
        with self._faults.tolerate():
            attention = pl_module.read_example(batch, self.attention_tokens)
            # Batches of pairs may be in order of their lengths.
            if self._examples is None or attention.read.shape[1] > self._examples[0].read.shape[1]:
                self._examples = attention, pl_module.read_example(batch, self.loss_tokens)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: TextModule) -> None:  # type: ignore[override]
        if not self._is_due(trainer):
            return
        # In all processes.
        pairs = pl_module.collect_pairs() if "pairs" in self.show else []
        if not self._draws(trainer) or self._examples is None:
            return
        loggers, step, network = trainer.loggers, trainer.global_step, pl_module.network
        (attention, losses), self._examples = self._examples, None
        with self._faults.tolerate(), IsolatedRng(0, pl_module.device).use():
            if "attention" in self.show:
                log_attention(loggers, network, attention, step)
            if "losses" in self.show:
                log_losses(loggers, network, losses, step)
        if pairs:
            with self._faults.tolerate():
                rows = [(pair.source, pair.target, pair.prediction) for pair in pairs]
                log_table(loggers, "pairs", ("source", "target", "prediction"), rows, step)

    def on_train_end(self, trainer: Trainer, pl_module: TextModule) -> None:  # type: ignore[override]
        if "embeddings" in self.show and self._draws(trainer):
            # `last.ckpt` is saved afterwards.
            with self._faults.tolerate():
                log_embeddings(trainer.loggers, pl_module.network, pl_module.tokenizers, trainer.global_step)

    def _draws(self, trainer: Trainer) -> bool:
        """Return whether this process draws at all."""
        return self._obstacle is None and trainer.is_global_zero and len(trainer.loggers) > 0

    def _is_due(self, trainer: Trainer) -> bool:
        """Return whether this validation of a fit is one that draws, which depends on its step only."""
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return False
        interval, step = trainer.val_check_interval, trainer.global_step
        if not isinstance(interval, int) or step >= trainer.max_steps > 0:
            return True
        return step // max(1, interval // trainer.accumulate_grad_batches) % self.every == 0
