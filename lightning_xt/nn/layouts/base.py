"""The contract of a layout: which sublayers there are, and in which order a forward calls them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

Kind = Literal["attention", "cross_attention", "feedforward"]


class Step(NamedTuple):
    """One call of a sublayer. Steps that are equal call the same sublayer, with the same weights."""

    kind: Kind
    layer: int


class Layout(ABC):
    """Lays a stack out in time."""

    @abstractmethod
    def list_steps(self, kinds: Sequence[Kind]) -> Sequence[Step]:
        """The calls of one forward.

        Args:
            kinds: what a layer is made of, in the usual order.
        """


LayoutFactory = Callable[[int], Layout]
"""Called with the number of layers."""
