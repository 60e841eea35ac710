"""Activations by their names in configs of `transformers`."""

from collections.abc import Mapping
from typing import Any

from lightning_xt.exchange.pretrained.base import UnsupportedSettingError
from lightning_xt.exchange.templates import part

ACTIVATIONS = {
    "gelu": part("GELU"),
    "gelu_new": part("GELU", approximate="tanh"),
    "gelu_pytorch_tanh": part("GELU", approximate="tanh"),
    "relu": part("ReLU"),
    "relu2": part("ReLUSquared"),
    "silu": part("SiLU"),
    "swish": part("SiLU"),
}
"""Our activation by the other library's name; of several names of one, an export writes the first."""


def check_activation(config: Mapping[str, Any], name: str) -> None:
    """Raise an UnsupportedSettingError if a setting names an activation without a counterpart."""
    if (found := config.get(name)) not in ACTIVATIONS:
        raise UnsupportedSettingError(f"{name} is {found!r}, but only {', '.join(ACTIVATIONS)} have a counterpart here")
