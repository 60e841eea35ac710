"""Copied weights: each of our weights is a differentiable function of weights of x-transformers."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Ledger:
    """Record of a copy between two models, by which gradients are mapped back.

    Args:
        theirs: model whose weights are copied.
        ours: model whose weights are filled.
        zeros: ends of the names of their weights that have no counterpart, and are zero.
    """

    def __init__(self, theirs: nn.Module, ours: nn.Module, zeros: Sequence[str] = ()) -> None:
        self.theirs, self.ours = theirs, ours
        self.zeros = {name for name, _ in theirs.named_parameters() if name.endswith(tuple(zeros))}
        self.taken: Counter[int] = Counter()
        self.shared: set[int] = set()
        self.idle: set[int] = set()
        self.filled: dict[int, tuple[nn.Parameter, Tensor]] = {}

    def take(self, weight: Tensor, *, shared: bool = False) -> Tensor:
        """Return one of their weights, to be copied once, or to several weights if it is shared."""
        self.taken[id(weight)] += 1
        if shared:
            self.shared.add(id(weight))
        return weight.view_as(weight)

    def skip(self, weight: Tensor) -> None:
        """Skip one of their weights that changes no output; its gradient must be zero."""
        self.idle.add(id(weight))

    def fill(self, weight: nn.Parameter, value: Tensor) -> None:
        """Fill one of our weights by a function of theirs, or by a constant if they have no such part."""
        assert id(weight) not in self.filled, "one of our weights is filled twice"
        assert weight.shape == value.shape, (tuple(weight.shape), tuple(value.shape))
        with torch.no_grad():
            weight.copy_(value)
        self.filled[id(weight)] = (weight, value)

    def check(self) -> None:
        """Assert that each of their weights is used once, and that each of our weights is filled."""
        given = {name: each for name, each in self.theirs.named_parameters() if name not in self.zeros}
        unused = [name for name, each in given.items() if id(each) not in self.taken | self.idle_once]
        twice = [
            name
            for name, each in given.items()
            if self.taken[id(each)] + self.idle_once[id(each)] > 1 and id(each) not in self.shared
        ]
        empty = [name for name, each in self.ours.named_parameters() if id(each) not in self.filled]
        assert (unused, twice, empty) == ([], [], [])

    @property
    def idle_once(self) -> Counter[int]:
        return Counter(self.idle)

    def map_gradients(self) -> dict[str, Tensor]:
        """Map our gradients back to their weights."""
        names, weights = zip(*self.theirs.named_parameters(), strict=True)
        pairs = [(own, value) for own, value in self.filled.values() if value.requires_grad and own.grad is not None]
        found = torch.autograd.grad(
            [value for _, value in pairs], weights, [own.grad for own, _ in pairs], allow_unused=True
        )
        zeros = (torch.zeros_like(weight) for weight in weights)
        return {name: zero if each is None else each for name, each, zero in zip(names, found, zeros, strict=True)}
