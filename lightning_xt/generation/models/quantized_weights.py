"""Weight formats for fast decoding.

A decode step reads every weight once, and does little else.

    float32     unchanged
    bfloat16    half the bytes; activations are rounded too
    int8        a quarter of the bytes: each row of a matrix is rounded to 255 levels, the rest is bfloat16
    int4        a sixth of the bytes: each group of 32 numbers of a row is rounded to 16 levels, the rest is bfloat16

Groups of another size are possible for both; the smaller, the more exact and the more bytes of scales. Torch's products
of few rows leave much of a CPU unused. There matrices are kept twice: as they are, for products with one vector in a
compiled step, and packed, for all others (`packed_products`); those of int8 and int4 are packed as bfloat16.
"""

import copy
from dataclasses import replace
from types import MappingProxyType
from typing import Literal, TypeVar, get_args

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn import functional

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.models.int4_linear import Int4Linear
from lightning_xt.generation.models.int8_linear import Int8Linear
from lightning_xt.generation.models.row_linear import RowLinear
from lightning_xt.generation.models.weight_groups import GroupSize
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.nn.adapters.layer_replacement import merge_adapters

Weights = Literal["float32", "bfloat16", "int8", "int4"]
Network = TypeVar("Network", bound=nn.Module)
ROUNDED = MappingProxyType({"int8": Int8Linear, "int4": Int4Linear})
"""Layers of the formats that round matrices by groups."""


def check_weights(weights: Weights | None, group_size: GroupSize | None) -> None:
    """Raise a ValueError for an unknown format of weights, or groups that the format does not have."""
    if weights is not None and weights not in get_args(Weights):
        raise ValueError(f"weights is {weights!r}; it must be one of {', '.join(get_args(Weights))}")
    if group_size is None:
        return
    if weights not in ROUNDED:
        given = "not given" if weights is None else weights
        raise ValueError(
            f"group_size is {group_size}, but weights is {given}, which has no groups; omit it, or set weights int8 or "
            "int4"
        )
    if group_size != "row" and (isinstance(group_size, bool) or not isinstance(group_size, int) or group_size < 1):
        raise ValueError(
            f"group_size is {group_size!r}; it must be at least 1 number of a row, or row for one scale per row"
        )


def convert_weights(network: Network, weights: Weights, group_size: GroupSize | None = None) -> Network:
    """Copy a network for decoding or evaluation, in evaluation mode, to a format of weights.

    Adapters are merged before weights are rounded. The weights of the copy may not change, and it runs on the device
    where it was made.

    Args:
        network: the network as trained.
        weights: the format.
        group_size: adjacent numbers of a row of a matrix that share a scale, for int8 and int4; the last group of a row
            may be smaller. None = whole rows for int8, 32 for int4.

    Raises:
        ValueError: the format is unknown, or has no such groups.
    """
    check_weights(weights, group_size)
    merged = merge_adapters(network)
    network = (copy.deepcopy(network) if merged is network else merged).eval().requires_grad_(False)
    if weights == "bfloat16":
        network = network.to(torch.bfloat16)
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear):
                setattr(parent, name, _replace(child, weights, group_size))
    # After rounding, so that matrices are rounded from full precision.
    return network.to(torch.bfloat16) if weights in ROUNDED else network


def _replace(linear: nn.Linear, weights: Weights, group_size: GroupSize | None) -> nn.Module:
    """Make the layer of a format."""
    kind = ROUNDED.get(weights)
    return RowLinear(linear) if kind is None else kind(linear, group_size)


@torch.no_grad()
def measure_loss(model: Autoregressive, tokens: Int[Tensor, "1 n"], inputs: Inputs | None = None) -> float:
    """Return the mean loss in nats of all but the first of at least two tokens, by a model in evaluation mode.

    No token sees later ones, a visible prefix neither.
    """
    inputs = None if inputs is None else replace(inputs, visible_prefix=None)
    logits = model(tokens[:, :-1], inputs=inputs)[0].float()
    return float(functional.cross_entropy(logits, tokens[0, 1:]))
