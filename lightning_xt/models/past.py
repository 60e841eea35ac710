"""Past: the remembered tokens that attention sees besides those of a segment."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.where import Where


@dataclass(frozen=True)
class Past:
    """Remembered tokens, before those of the segment in every call of attention.

    Args:
        vectors: vectors of them for each call of attention. None = there are none.
        calls: numbers of these calls.
        embedded: the same tokens before the first layer.
        where: positions and mask of all tokens.
        inputs: inputs of all tokens.
    """

    vectors: tuple[Float[Tensor, "b m D"], ...] | None
    calls: Sequence[int]
    embedded: Float[Tensor, "b m D"] | None
    where: Where
    inputs: Inputs

    def add_embedded(self, x: Float[Tensor, "b n D"]) -> "Past":
        """Set the vectors of all tokens before the first layer."""
        whole = x if self.embedded is None else torch.cat((self.embedded.to(x.dtype), x), dim=1)
        return replace(self, inputs=replace(self.inputs, embedded=whole))

    def choose_call(self, call: int) -> "Past":
        """Return the part of one call."""
        if self.vectors is None:
            return self
        return replace(self, vectors=(self.vectors[self.calls.index(call)],), calls=(call,))

    def prepend(self, x: Float[Tensor, "b n D"], index: int = 0) -> Float[Tensor, "b _ D"]:
        """Prepend the vectors of one call to those of the segment."""
        return x if self.vectors is None else torch.cat((self.vectors[index].to(x.dtype), x), dim=1)
