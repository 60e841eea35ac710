"""Sizes of gradients and updates of each layer."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from lightning.pytorch.loggers import Logger
from torch import Tensor

from lightning_xt.training.loggers.media import log_histogram

LEAST = 1e-12
"""Weights of a smaller norm count as this."""


class StepSizes:
    """Gradients and updates of one optimizer step.

    Args:
        parameters: the trained parameters by name, just before the step.
    """

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self._parameters = {name: each for name, each in parameters.items() if each.requires_grad}
        self._before = {name: each.detach().clone() for name, each in self._parameters.items()}

    def log(self, loggers: Sequence[Logger], step: int) -> None:
        """Log, after the step, histograms of each layer's gradients and update, and the ratio of update to weights.

        Gradients are as the optimizer got them: clipped, and those of the mean.
        """
        ratios: dict[str, float] = {}
        for layer, names in _group_by_layer(self._parameters).items():
            gradients = [grad.flatten() for name in names if (grad := self._parameters[name].grad) is not None]
            changes = [(self._parameters[name].detach() - self._before[name]).flatten() for name in names]
            # Another name than that of the ratio, because TensorBoard has one kind of data for a name.
            for kind, parts in (("gradients", gradients), ("update_values", changes)):
                if parts and bool((values := torch.cat(parts).float()).isfinite().all()):
                    log_histogram(loggers, f"{kind}/{layer}", values, step)
            weights = _norm([self._before[name] for name in names])
            ratios[f"updates/{layer}"] = _norm(changes) / max(weights, LEAST)
        for logger in loggers:
            logger.log_metrics(ratios, step)


def _norm(tensors: Sequence[Tensor]) -> float:
    return float(torch.stack([each.float().norm() for each in tensors]).norm())


def _group_by_layer(names: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Group the names of parameters by sublayer, such as `decoder.0_attention`, or by part outside the layers."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        path = re.sub(r"\b(network|stack|sublayers)\.", "", name)
        inside = re.match(r"(?:\w+\.)?\d+_\w+", path)
        found[path.rpartition(".")[0] if inside is None else inside[0]].append(name)
    return found
