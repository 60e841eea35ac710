"""Builder of the rules by which weights of x-transformers become those of a network here."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from lightning_xt.exchange.tensor_rules import ComputedTensor, FixedTensor, ImportRule, TensorRule


class RuleBuilder:
    """Builder of rules from the parameters of a network, which may be without memory.

    Args:
        network: the network.
    """

    def __init__(self, network: nn.Module) -> None:
        # Of a parameter with two names the first counts.
        named = reversed(list(network.named_parameters(remove_duplicate=False)))
        self._names = {id(each): name for name, each in named}
        self.rules: list[ImportRule] = []

    def copy(self, ours: Tensor, theirs: str) -> None:
        """Add the rule of a tensor that is the same on both sides."""
        self.rules.append(TensorRule(self._names[id(ours)], (theirs,)))

    def compute(self, ours: Tensor, theirs: Mapping[str, tuple[int, ...]], function: Callable[..., Tensor]) -> None:
        """Add the rule of a tensor that is a function of tensors there, given by name with their shapes."""
        self.rules.append(ComputedTensor(self._names[id(ours)], theirs, function))

    def add_offset(self, ours: Tensor, theirs: str, offset: float, factor: float = 1.0) -> None:
        """Add the rule of a tensor that is stored less an offset there; a factor on it becomes part of it."""
        self.compute(ours, {theirs: tuple(ours.shape)}, lambda given: (given + offset) * factor)

    def fill_zeros(self, ours: Tensor) -> None:
        """Add the rule of a tensor that x-transformers does not have, and that is zero for its models."""
        shape = tuple(ours.shape)
        self.compute(ours, {}, lambda: torch.zeros(shape))

    def fix(self, theirs: str, value: Tensor, tolerance: float = 0.0, *, written: bool = True) -> None:
        """Add the rule of a tensor there that can only have one value; see `FixedTensor`."""
        self.rules.append(FixedTensor(theirs, value, tolerance, written))
