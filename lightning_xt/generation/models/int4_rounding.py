"""Rounding of groups of weights to 16 levels."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

NARROWED = (1.0, 0.9, 0.8)
"""Fractions of a group's range that are tried: a narrower range has finer steps and cuts off the extremes."""
FITS = 3
"""Least-squares fits of scale and offset to the codes, each followed by a new rounding."""
PIECE = 2**15
"""Numbers that are rounded at once, which a CPU's cache holds."""


class Int4Groups(NamedTuple):
    """Groups of weights as codes from 0 to 15, with a scale and an offset each: (code - 8) * scale + offset."""

    codes: UInt8[Tensor, "o g w"]
    scale: Float[Tensor, "o g"]
    offset: Float[Tensor, "o g"]


class _Candidate(NamedTuple):
    """A rounding of groups, and its squared error."""

    codes: Tensor
    scale: Tensor
    offset: Tensor
    error: Tensor


def round_to_int4(groups: Float[Tensor, "o g w"], counted: Bool[Tensor, "g w"]) -> Int4Groups:
    """Round groups with the least squared error found; scale and offset are bfloat16.

    Starts with the best of several ranges, then alternates between fitting the scale and the offset and rounding again.

    Args:
        groups: weights.
        counted: True for numbers whose errors count; the others are padding within the group's range.
    """
    rows = max(1, PIECE // groups[0].numel())
    pieces = [_round(piece.double(), counted.double()) for piece in groups.split(rows)]
    codes, scale, offset, _ = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    return Int4Groups(codes.to(torch.uint8), scale[..., 0].to(torch.bfloat16), offset[..., 0].to(torch.bfloat16))


def _round(groups: Tensor, counted: Tensor) -> _Candidate:
    low, high = groups.aminmax(dim=-1, keepdim=True)
    middle, step = (low + high) / 2, (high - low) / 15
    # Codes 0 and 15 lie 7.5 steps from the middle, and code 8 half a step.
    tried = (_round_by(groups, counted, step * each, middle + step * each / 2) for each in NARROWED)
    best = next(tried)
    for each in tried:
        best = _choose(best, each)
    count = counted.sum(dim=-1, keepdim=True)
    mean = (groups * counted).sum(dim=-1, keepdim=True) / count
    for _ in range(FITS):
        codes = best.codes - 8
        mean_code = (codes * counted).sum(dim=-1, keepdim=True) / count
        apart = (codes - mean_code) * counted
        slope = (apart * groups).sum(dim=-1, keepdim=True) / apart.square().sum(dim=-1, keepdim=True).clamp(min=1e-12)
        best = _choose(best, _round_by(groups, counted, slope, mean - slope * mean_code))
    return best


def _round_by(groups: Tensor, counted: Tensor, scale: Tensor, offset: Tensor) -> _Candidate:
    """Round by a scale and an offset, which are rounded to bfloat16 first, so that they match the product."""
    scale = scale.clamp(min=1e-12).to(torch.bfloat16).to(groups.dtype)
    offset = offset.to(torch.bfloat16).to(groups.dtype)
    codes = ((groups - offset) / scale + 8).round().clamp(0, 15)
    error = ((codes - 8) * scale + offset - groups).square()
    return _Candidate(codes, scale, offset, (error * counted).sum(dim=-1, keepdim=True))


def _choose(first: _Candidate, second: _Candidate) -> _Candidate:
    """Choose the better rounding of each group."""
    better = second.error < first.error
    return _Candidate(*(torch.where(better, b, a) for a, b in zip(first, second, strict=True)))
