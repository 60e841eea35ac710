"""Numbers of an option as tensors."""

from collections.abc import Iterable

import torch
from torch import Tensor

from lightning_xt.core.wide_floats import choose_widest


class OptionTensor:
    """Numbers kept on each device that uses them, because a transfer at each step would wait for the device."""

    def __init__(self, values: Iterable[int | float], dtype: torch.dtype) -> None:
        self._on_cpu = torch.tensor(list(values), dtype=dtype)
        self._copies: dict[torch.device, Tensor] = {}

    def to(self, device: torch.device) -> Tensor:
        """Return the numbers on a device, those of 64 bits in 32 if it has no others."""
        if device not in self._copies:
            # A tensor of inference mode would fail in a later training step.
            with torch.inference_mode(False):
                kind = self._on_cpu.dtype
                self._copies[device] = self._on_cpu.to(device, choose_widest(device) if kind == torch.float64 else kind)
        return self._copies[device]
