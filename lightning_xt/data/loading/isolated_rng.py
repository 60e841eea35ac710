"""Isolated random number generators."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


class IsolatedRng:
    """Separate states of the global random number generators of torch, numpy and Python.

    Args:
        seed: initial seed, 0 to 2**64 - 1.
        device: device whose generator is included too, torch's current GPU of its kind. None = only the CPU's.
    """

    def __init__(self, seed: int, device: torch.device | None = None) -> None:
        self._gpu: Any = None if device is None else {"cuda": torch.cuda, "mps": torch.mps}.get(device.type)
        before = self._capture()
        seed_generators(seed)
        if self._gpu is not None:
            self._gpu.manual_seed(seed)
        self._states = self._capture()
        self._restore(before)

    @contextmanager
    def use(self) -> Iterator[None]:
        """Swap these states in; on exit, save them and restore the others."""
        before = self._capture()
        self._restore(self._states)
        try:
            yield
        finally:
            self._states = self._capture()
            self._restore(before)

    def _capture(self) -> tuple[Any, ...]:
        on_gpu = None if self._gpu is None else self._gpu.get_rng_state()
        return torch.get_rng_state(), np.random.get_state(), random.getstate(), on_gpu

    def _restore(self, states: tuple[Any, ...]) -> None:
        on_cpu, of_numpy, of_python, on_gpu = states
        torch.set_rng_state(on_cpu)
        np.random.set_state(of_numpy)
        random.setstate(of_python)
        if on_gpu is not None:
            self._gpu.set_rng_state(on_gpu)


def seed_generators(seed: int) -> None:
    """Seed the global random number generators of torch's CPU, numpy and Python."""
    # `torch.manual_seed` would seed the GPUs too.
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
