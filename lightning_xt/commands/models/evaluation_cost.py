"""Cost of other weights in an evaluation."""

import math
from collections.abc import Mapping
from copy import copy
from typing import Any

from torch import Tensor

from lightning_xt.inference.text_generator import DecodingSetup
from lightning_xt.training.module import TransformerModule


class EvaluationCost:
    """Cost of other weights: the loss of all batches of an evaluation, next to that of the weights as trained.

    Args:
        weights: name of their format.
        module: the module that evaluates.
    """

    def __init__(self, weights: str, module: TransformerModule) -> None:
        self.weights = weights
        # The same network and Trainer, and other metrics.
        self._trained = copy(module)
        self._trained.trainer = module.trainer
        # The likelihood is compared, which needs no second decoding.
        self._trained.decoding, self._trained.decodes_evaluations = DecodingSetup(), False
        self._split = ""
        self._metrics: Mapping[str, Tensor] = {}

    def begin(self, split: str) -> None:
        """Begin the metrics of `val` or `test`."""
        self._split = split
        self._trained.begin_evaluation(split)

    def add(self, batch: Any) -> None:
        """Add a batch that the module has evaluated."""
        with self._trained.trainer.precision_plugin.forward_context():
            self._trained.evaluate(batch)

    def finish(self) -> None:
        """Compute the metrics of all processes, which must all call it."""
        self._metrics = self._trained.compute_metrics()

    def describe(self, metrics: Mapping[str, Any]) -> str:
        """Compare the logged metrics of the weights with those of the weights as trained: bits per byte, else loss."""
        name, unit = ("bits_per_byte", "") if "bits_per_byte" in self._metrics else ("loss", " nats a token")
        lowered, trained = float(metrics[f"{self._split}/{name}"]), float(self._metrics[name])
        more = lowered - trained
        relative = f" ({100 * more / trained:+.2f} %)" if trained and math.isfinite(more) else ""
        return (
            f"weights {self.weights}: {self._split}/{name} {lowered:.6f}{unit}, {trained:.6f} with float32; difference "
            f"{more:+.6f}{relative}"
        )
