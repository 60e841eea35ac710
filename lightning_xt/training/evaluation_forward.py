"""Forward of evaluations, compiled where that pays."""

import math
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from lightning_xt.training.compilation import find_keywords

LONG = {"cpu": 3e12}
"""Fewest FLOPs of an evaluation that is compiled, by device: some twenty seconds of two cores."""
LONG_ELSEWHERE = 3e15
"""Fewest FLOPs of an evaluation that is compiled on other devices: half a minute of a GPU."""


class EvaluationForward:
    """Forward of the network in evaluations: compiled if the evaluation is long, for batches of one shape.

    The shape is that of the first batch. Others, such as the last one, run uncompiled, because a program takes longer
    to compile than one batch saves. The choice depends on the network, the device and the data, not on the command, so
    that a fit and `validate` find the same numbers.

    Args:
        options: keywords of torch.compile; True = none, False = do not compile. Their `evaluation` is true to compile
            short evaluations too, false to compile none.
        network: network to evaluate.
    """

    def __init__(self, options: bool | dict[str, Any], network: Any) -> None:
        self.options, self.network = options, network
        self._wanted = options.get("evaluation") if isinstance(options, dict) else None
        self._batches = 0.0
        self._shape: torch.Size | None = None
        """Shape of the batches that run compiled; of no batch if none does. None before the first batch."""
        self._compiled: Callable[..., Any] | None = None

    def begin(self, batches: float, *, compiles: bool) -> None:
        """Begin an evaluation.

        Args:
            batches: number of batches of all processes; infinite if it is not known.
            compiles: False to run uncompiled whatever the options are.
        """
        self._batches, self._shape = batches if compiles else 0.0, None

    def __call__(self, tokens: Tensor, **options: Any) -> Any:
        if self._shape is None:
            self._shape = tokens.shape if self._pays(tokens) else torch.Size()
        forward = self.network if self._compiled is None or tokens.shape != self._shape else self._compiled
        return forward(tokens, **options)

    def _pays(self, first: Tensor) -> bool:
        """Return True if the network is compiled for this evaluation."""
        if self.options is False or self._wanted is False or not self._batches:
            return False
        if not self._wanted and not is_long(self.network, self._batches * first.numel(), first.device):
            return False
        if self._compiled is None and (keywords := find_keywords(self.options, first.device, "evaluating")) is not None:
            rank_zero_info("compiling the network for evaluation, whose first batch takes longer")
            # Another function than `forward`: torch counts the programs of each, and `forward` has those of training.
            self._compiled = torch.compile(self._run, **keywords)
        return self._compiled is not None

    def _run(self, tokens: Tensor, **options: Any) -> Any:
        return self.network(tokens, **options)


def is_long(network: nn.Module, tokens: float, device: torch.device) -> bool:
    """Return True if an evaluation of this number of tokens takes longer than compiling its network."""
    flops = 2.0 * sum(parameter.numel() for parameter in network.parameters()) * tokens
    return math.isfinite(flops) and flops >= LONG.get(device.type, LONG_ELSEWHERE)
