"""What the layers of one forward pass leave for later layers of the same pass."""

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Trace:
    """Grows by replacement, never in place, so that activation checkpointing can run a layer twice.

    Args:
        values: the values that each self-attention call projected (latents, with Latent), before any value mod, first
            call first.
        context_values: the same for cross-attention.
    """

    values: tuple[Float[Tensor, "b _ n _"], ...] = ()
    context_values: tuple[Float[Tensor, "b _ m _"], ...] = ()

    def add_values(self, v: Tensor) -> "Trace":
        """The trace after one more self-attention call."""
        return replace(self, values=(*self.values, v))

    def add_context_values(self, v: Tensor) -> "Trace":
        """The trace after one more cross-attention call."""
        return replace(self, context_values=(*self.context_values, v))
