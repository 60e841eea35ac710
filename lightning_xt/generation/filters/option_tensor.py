"""Numbers of an option, as tensors."""

from collections.abc import Iterable

import torch
from torch import Tensor


class OptionTensor:
    """Keeps numbers on every device that asks for them: to send them at each step would be to wait for it.

    Args:
        values: the numbers.
        dtype: of the tensors.
    """

    def __init__(self, values: Iterable[int | float], dtype: torch.dtype) -> None:
        self._here = torch.tensor(list(values), dtype=dtype)
        self._there: dict[torch.device, Tensor] = {}

    def on(self, device: torch.device) -> Tensor:
        """The numbers as a tensor there."""
        if device not in self._there:
            self._there[device] = self._here.to(device)
        return self._there[device]
