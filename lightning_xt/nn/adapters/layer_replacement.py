"""Replacing layers of a network, and merging those of adapters."""

import copy
from collections.abc import Mapping
from typing import TypeVar

from torch import nn

from lightning_xt.nn.adapters.adapted_layer import AdaptedLayer

Network = TypeVar("Network", bound=nn.Module)


def replace_layers(network: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> None:
    """Replace layers of a network, in place and wherever they stand."""
    for parent in list(network.modules()):
        # Not `named_children`, which lists a layer with two names once.
        for name, child in list(parent._modules.items()):
            if child is not None and child in replacements:
                setattr(parent, name, replacements[child])


def merge_adapters(network: Network) -> Network:
    """Return a copy of a network with merged adapters, of plain layers that all train; itself if it has no adapter."""
    if not any(isinstance(layer, AdaptedLayer) for layer in network.modules()):
        return network
    merged = copy.deepcopy(network)
    merge_in_place(merged)
    return merged.requires_grad_(True)


def merge_in_place(network: nn.Module) -> None:
    """Replace the layers of adapters by plain layers that compute the same."""
    replace_layers(network, {layer: layer.merge() for layer in network.modules() if isinstance(layer, AdaptedLayer)})
