"""The contract of a layout: the sublayers of a stack, and the order in which a forward calls them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lightning_xt.core.shapes import Kind


class Step(NamedTuple):
    """One call of a sublayer. Equal steps call the same sublayer, with the same weights."""

    kind: Kind
    layer: int
    copy: int = 0
    """Number of the sublayer among those of its kind in the layer."""
    beside: tuple[Kind, ...] = ()
    """Kinds of further branches of the sublayer, which read the same input."""

    @property
    def name(self) -> str:
        """Name of the sublayer."""
        return f"{self.layer}_{self.kind}" + (f"_{self.copy + 1}" if self.copy else "")


class Layout(ABC):
    """Order of the sublayers of a stack."""

    def __init__(self, depth: int) -> None:
        self.depth = depth

    @abstractmethod
    def list_steps(self, kinds: Sequence[Kind]) -> Sequence[Step]:
        """List the calls of one forward, from the kinds of the sublayers of a layer in the usual order."""

    def get_factor(self, kind: Kind) -> float:
        """Return the factor of the outputs of the sublayers of a kind."""
        return 1.0


LayoutFactory = Callable[[int], Layout]
"""Called with the number of layers."""


def build_steps(order: str, kinds: Sequence[Kind]) -> Sequence[Step]:
    """Build steps from letters: a is attention, c cross-attention, f a feedforward.

    Each letter counts by itself, so the third f is the feedforward of layer 2. Without a c, the cross-attention of a
    stack that has some follows each a.
    """
    if "c" not in order and "cross_attention" in kinds:
        order = order.replace("a", "ac")
    names: dict[str, Kind] = {"a": "attention", "c": "cross_attention", "f": "feedforward"}
    return [Step(names[letter], order[:at].count(letter)) for at, letter in enumerate(order)]
