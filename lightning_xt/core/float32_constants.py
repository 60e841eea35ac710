"""Buffers that stay float32 when a model is cast."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn


class KeepsConstants(nn.Module):
    """Module with constants that are float32 in any model: in bf16 positions 1000 and 1003 are equal."""

    _constants: Mapping[str, tuple[float, ...]] = MappingProxyType({})

    def register_constant(self, name: str, values: Sequence[float]) -> None:
        """Register a buffer that stays float32 when the model is cast."""
        self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)
        self._constants = {**self._constants, name: tuple(values)}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "KeepsConstants":
        super()._apply(fn, recurse)
        for name, values in self._constants.items():
            setattr(self, name, torch.tensor(values, dtype=torch.float32, device=getattr(self, name).device))
        return self
