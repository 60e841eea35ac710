"""Options of a network of x-transformers, as far as its weights depend on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StackOptions:
    """Options of a wrapper and its layers, complete with the defaults of x-transformers.

    Args:
        wrapper: those of the TransformerWrapper.
        layers: those of its Decoder or Encoder.
        sublayers: those of each sublayer by its letter: a is attention, c cross-attention, f a feedforward.
    """

    wrapper: Mapping[str, Any]
    layers: Mapping[str, Any]
    sublayers: Mapping[str, Sequence[Mapping[str, Any]]]

    @property
    def unit_offset(self) -> float:
        """Number that x-transformers adds to the gains of norms and of layer scale."""
        return float(self.layers["norm_add_unit_offset"])

    def list_indices(self, count: int) -> list[int]:
        """List the index of each of `count` sublayers there, in the order in which a forward first calls them."""
        order = self.layers["layers_execute_order"]
        return list(range(count)) if order is None else list(dict.fromkeys(order))

    def is_shifted(self, index: int) -> bool:
        """Return True if the sublayer of an index reads shifted tokens."""
        shifts = self.layers["shift_tokens"]
        return bool((shifts[index] if isinstance(shifts, tuple) else shifts) > 0)
