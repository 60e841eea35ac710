"""Rotation of pairs of features."""

import torch
from jaxtyping import Float
from torch import Tensor


def rotate_pairs(
    x: Float[Tensor, "b h n d"], angles: Float[Tensor, "#b 1 n _"], gain: float | Float[Tensor, "#b 1 n _"]
) -> Float[Tensor, "b h n d"]:
    """Rotate feature k by an angle with feature k + the number of angles, and multiply both by a gain.

    Further features stay as they are.
    """
    half = angles.shape[-1]
    cos, sin = (gain * angles.cos()).to(x.dtype), (gain * angles.sin()).to(x.dtype)
    left, right, rest = x.split((half, half, x.shape[-1] - 2 * half), dim=-1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin, rest), dim=-1)
