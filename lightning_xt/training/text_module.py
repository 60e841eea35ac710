"""Interface of the models for callbacks and commands: phases, evaluations and texts."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from lightning.pytorch import LightningModule
from torch import nn

from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.text_generator import DecodingSetup, TextGenerator
from lightning_xt.training.figures.example import Example
from lightning_xt.training.metrics.pair_scores import ShownPair


class TextModule(LightningModule, ABC):
    """LightningModule that generates texts, evaluates a validation as it does a test, and knows its phase.

    Lightning's own record of the phase is gone once an error has passed.
    """

    network: nn.Module
    """The network that is trained."""
    schedule_factory: Callable[[int], Any] | None
    """Schedule of the learning rate. None = constant."""
    maximal_update: Any = None
    """`MaximalUpdate`: rules for learning rates that hold at every width. None = those of the optimizer."""
    phase: str | None = None
    """training, evaluation, sampling or prediction. None = nothing has begun."""
    step_seed: int | None = None
    """Seed of the batch that trains, equal in all processes. None = there is none."""
    plain_lines: ClassVar[bool]
    """True if a file holds each prediction as a line of text."""
    shown_metrics: ClassVar[tuple[str, ...]]
    """Metrics of an evaluation that the progress bar shows."""
    no_generation: ClassVar[str | None] = None
    """Reason for which the model does not generate, with the way out. None = it generates."""
    decodes_evaluations: bool = False
    """True if an evaluation decodes: besides a fit by the options of `sampling`."""

    def __init__(self) -> None:
        super().__init__()
        self.sampling = GenerationOptions()
        """Options of `predict`, and of evaluations that decode."""
        self.decoding = DecodingSetup()
        """Models that replace or help the network in generation, and the network that evaluations measure."""

    @property
    def evaluated_network(self) -> Any:
        """Network that evaluations measure and texts come from: the trained one unless `decoding` replaces it."""
        return self.network if self.decoding.network is None else self.decoding.network

    @property
    def data_module(self) -> Any:
        """Data module of the current Trainer; None if there is none."""
        return None if self._trainer is None else getattr(self._trainer, "datamodule", None)

    @property
    def data_inputs(self) -> Sequence[str]:
        """Inputs of the network besides ids that the current data bring."""
        return getattr(self.data_module, "given_inputs", ())

    @property
    def needed_inputs(self) -> dict[str, str]:
        """Inputs of the network that only data can give, each with the class of a part that needs it."""
        return {}

    @property
    @abstractmethod
    def tokenizers(self) -> dict[str, Tokenizer]:
        """Tokenizers by use."""

    @property
    @abstractmethod
    def text_generator(self) -> TextGenerator:
        """Generator of texts."""

    @abstractmethod
    def limit_length(self, prompts: Sequence[str] | None, sampling: GenerationOptions) -> GenerationOptions:
        """Limit the length of samples to the positions of the network; ValueError if a prompt has more tokens."""

    @abstractmethod
    def draw_samples(self, prompts: Sequence[str] | None, sampling: GenerationOptions) -> list[str]:
        """Draw the samples of a validation, by default for the model's own prompts. All processes must call it."""

    @abstractmethod
    def begin_evaluation(self, split: str) -> None:
        """Begin the metrics of `val` or `test`."""

    @abstractmethod
    def evaluate(self, batch: Any) -> None:
        """Add a batch to the metrics."""

    @abstractmethod
    def compute_metrics(self) -> dict[str, Any]:
        """Compute the metrics of all processes, equal in each."""

    @abstractmethod
    def read_example(self, batch: Any, most: int) -> Example:
        """Return the first sequence, or a pair, of a batch of an evaluation, of at most this number of tokens."""

    def collect_pairs(self) -> list[ShownPair]:
        """Collect the first decoded pairs of an evaluation from all processes, which must all call it."""
        return []

    def on_train_batch_start(self, *args: Any) -> None:
        self.phase = "training"

    def on_validation_start(self) -> None:
        self.phase = "evaluation"

    on_test_start = on_validation_start

    def on_predict_start(self) -> None:
        self.phase = "prediction"

    def on_validation_epoch_start(self) -> None:
        self.begin_evaluation("val")

    def on_test_epoch_start(self) -> None:
        self.begin_evaluation("test")

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.evaluate(batch)

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        self._log_metrics("test")

    def _log_metrics(self, split: str) -> None:
        """Log the metrics.

        Raises:
            ValueError: the loss of an evaluation without training is not finite.
        """
        metrics = self.compute_metrics()
        # In training the guards of steps decide.
        if self.trainer.state.fn != "fit" and not math.isfinite(loss := float(metrics.get("loss", 0))):
            raise ValueError(
                f"{split}/loss is {loss}: the model's scores are not finite, because its weights may "
                "hold NaN or infinity; use another checkpoint, or train again with a lower learning rate"
            )
        for name, value in metrics.items():
            # Lightning wants `sync_dist` although they are equal already.
            self.log(f"{split}/{name}", value, prog_bar=name in self.shown_metrics, sync_dist=True)
