"""Numbers of an option as tensors."""

from collections.abc import Iterable

import torch
from torch import Tensor


class OptionTensor:
    """Numbers kept on each device that uses them, because a transfer at each step would wait for the device."""

    def __init__(self, values: Iterable[int | float], dtype: torch.dtype) -> None:
        self._on_cpu = torch.tensor(list(values), dtype=dtype)
        self._copies: dict[torch.device, Tensor] = {}

    def to(self, device: torch.device) -> Tensor:
        """Return the numbers on a device."""
        if device not in self._copies:
            # A tensor of inference mode would fail in a later training step.
            with torch.inference_mode(False):
                self._copies[device] = self._on_cpu.to(device)
        return self._copies[device]
