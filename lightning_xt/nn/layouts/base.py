"""The contract of a layout: the sublayers of a stack, and the order in which a forward calls them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

Kind = Literal["attention", "cross_attention", "feedforward"]


class Step(NamedTuple):
    """One call of a sublayer. Equal steps call the same sublayer, with the same weights."""

    kind: Kind
    layer: int


class Layout(ABC):
    """Order of the sublayers of a stack."""

    def __init__(self, depth: int) -> None:
        self.depth = depth

    @abstractmethod
    def list_steps(self, kinds: Sequence[Kind]) -> Sequence[Step]:
        """List the calls of one forward, from the kinds of the sublayers of a layer in the usual order."""


LayoutFactory = Callable[[int], Layout]
"""Called with the number of layers."""
