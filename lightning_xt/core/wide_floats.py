"""Numbers of 64 bits, which Apple's GPUs do not have."""

import torch
from torch import Tensor


def choose_widest(device: torch.device) -> torch.dtype:
    """Return the widest floating-point type of a device."""
    return torch.float32 if device.type == "mps" else torch.float64


def to_float64(t: Tensor) -> Tensor:
    """Return a tensor in float64: on its device, or on the CPU if the device has no such numbers."""
    return (t if choose_widest(t.device) == torch.float64 else t.cpu()).double()
