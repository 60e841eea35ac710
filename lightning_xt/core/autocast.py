"""Computations that keep their precision under autocast."""

import torch
from torch import Tensor


def disable_autocast(x: Tensor) -> torch.autocast:
    """Turn autocast off on the device of a tensor, whose products it would round to 16 bits.

    The meta device, on which the outline measures, has no autocast.
    """
    device = x.device.type
    return torch.autocast(device if torch.amp.is_autocast_available(device) else "cpu", enabled=False)
