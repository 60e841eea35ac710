"""Results of layers for later layers of the same forward."""

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Trace:
    """Immutable record of earlier layers, replaced rather than changed, so that checkpointing can run a layer twice.

    Args:
        values: values that each self-attention call projected (latents with Latent), before any value mod, in order.
        context_values: values that each cross-attention call projected.
        hidden: vectors that each sublayer call read from the stream, before links and norms. None = not recorded.
    """

    values: tuple[Float[Tensor, "b _ n _"], ...] = ()
    context_values: tuple[Float[Tensor, "b _ m _"], ...] = ()
    hidden: tuple[Float[Tensor, "b n D"], ...] | None = None

    def add_values(self, v: Tensor) -> "Trace":
        """Append the values of a self-attention call."""
        return replace(self, values=(*self.values, v))

    def add_context_values(self, v: Tensor) -> "Trace":
        """Append the values of a cross-attention call."""
        return replace(self, context_values=(*self.context_values, v))

    def add_hidden(self, x: Tensor) -> "Trace":
        """Append the vectors that a sublayer call read, if they are recorded."""
        return self if self.hidden is None else replace(self, hidden=(*self.hidden, x))
