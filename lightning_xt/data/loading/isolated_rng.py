"""Random numbers of one's own."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


class OwnRandomness:
    """Keeps global random states for code that draws from them, apart from everyone else's.

    They are torch's, numpy's and Python's.

    Args:
        seed: what they are set from, 0 to 2**64 - 1.
        cuda: whether they include that of torch's current GPU.
    """

    def __init__(self, seed: int, *, cuda: bool = False) -> None:
        self.cuda = cuda
        before = self._taken()
        # `torch.manual_seed` would set the GPUs' too.
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        self._states = self._taken()
        self._put(before)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Puts these states in the place of the others for a while."""
        before = self._taken()
        self._put(self._states)
        try:
            yield
        finally:
            self._states = self._taken()
            self._put(before)

    def _taken(self) -> tuple[Any, ...]:
        on_gpu = torch.cuda.get_rng_state() if self.cuda else None
        return torch.get_rng_state(), np.random.get_state(), random.getstate(), on_gpu

    def _put(self, states: tuple[Any, ...]) -> None:
        on_cpu, of_numpy, of_python, on_gpu = states
        torch.set_rng_state(on_cpu)
        np.random.set_state(of_numpy)
        random.setstate(of_python)
        if on_gpu is not None:
            torch.cuda.set_rng_state(on_gpu)
