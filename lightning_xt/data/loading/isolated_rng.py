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
        cuda: whether to include the generator of torch's current GPU.
    """

    def __init__(self, seed: int, *, cuda: bool = False) -> None:
        self.cuda = cuda
        before = self._capture()
        seed_generators(seed)
        if cuda:
            torch.cuda.manual_seed(seed)
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
        on_gpu = torch.cuda.get_rng_state() if self.cuda else None
        return torch.get_rng_state(), np.random.get_state(), random.getstate(), on_gpu

    def _restore(self, states: tuple[Any, ...]) -> None:
        on_cpu, of_numpy, of_python, on_gpu = states
        torch.set_rng_state(on_cpu)
        np.random.set_state(of_numpy)
        random.setstate(of_python)
        if on_gpu is not None:
            torch.cuda.set_rng_state(on_gpu)


def seed_generators(seed: int) -> None:
    """Seed the global random number generators of torch's CPU, numpy and Python."""
    # `torch.manual_seed` would seed the GPUs too.
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
