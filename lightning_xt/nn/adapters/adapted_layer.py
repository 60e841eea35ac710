"""Layers with parameters of an adapter."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import nn


class AdaptedLayer(ABC):
    """Layer of a network to which an adapter has added parameters."""

    adapter_parameters: ClassVar[tuple[str, ...]]
    """Names of the parameters that the adapter has added."""

    @abstractmethod
    def merge(self) -> nn.Module:
        """Return a layer of the plain kind that computes what this one computes in evaluation."""


def list_adapter_parameters(network: nn.Module) -> list[str]:
    """List the names of the parameters that an adapter has added to a network; none if it has no adapter."""
    return [
        f"{path}.{name}" if path else name
        for path, layer in network.named_modules()
        if isinstance(layer, AdaptedLayer)
        for name in layer.adapter_parameters
    ]
