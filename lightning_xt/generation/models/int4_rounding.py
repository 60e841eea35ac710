"""Rounding of groups of weights to 16 levels."""

from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lightning_xt.core.wide_floats import to_float64


class Int4Groups(NamedTuple):
    """Groups of weights as codes from 0 to 15, with a scale and an offset each: (code - 8) * scale + offset."""

    codes: UInt8[Tensor, "o g w"]
    scale: Float[Tensor, "o g"]
    offset: Float[Tensor, "o g"]


def round_to_int4(groups: Float[Tensor, "o g w"]) -> Int4Groups:
    """Round groups to 16 levels from their least weight to their largest; scale and offset are bfloat16."""
    # Narrower ranges and least-squares fits lower the squared error by up to a fifth, but not the loss of a network.
    exact = to_float64(groups)
    low, high = exact.aminmax(dim=-1, keepdim=True)
    # Rounded before the codes are chosen, so that they match the product.
    scale = ((high - low) / 15).clamp(min=1e-12).to(torch.bfloat16)
    # Codes 0 and 15 are equally far from the middle.
    offset = ((low + high + scale.double()) / 2).to(torch.bfloat16)
    codes = ((exact - offset.double()) / scale.double() + 8).round().clamp(0, 15)
    found = codes.to(torch.uint8), scale[..., 0], offset[..., 0]
    return Int4Groups(*(each.to(groups.device) for each in found))
