"""The contract of a value mod: changes values before they are cached and weighed."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import AttentionShape


class ValueMod(nn.Module, ABC):
    """Change of each value by its token and by the values of that token in earlier layers."""

    self_attention_only: ClassVar[bool] = False
    """True if a variant cannot serve cross-attention."""

    reads_tokens: ClassVar[bool] = False
    """True if a variant reads token ids, which soft tokens do not have."""
    needs_positive: ClassVar[bool] = False
    """True if a variant gathers numbers above 0 only, so that neither values nor weights may be negative."""

    def check_first_values(self, shape: tuple[int, int]) -> None:
        """Raise a ValueError if the first layer's values, of these heads and this width, cannot be used."""

    @abstractmethod
    def forward(
        self,
        v: Float[Tensor, "b g n e"],
        x: Float[Tensor, "b n c"],
        earlier: tuple[Float[Tensor, "b _ n _"], ...],
        inputs: Inputs,
    ) -> Float[Tensor, "b g n e"]:
        """Change the values of this layer.

        Args:
            v: values from the projection, or from the mod before.
            x: the vectors from which the values were projected.
            earlier: values that each earlier attention of the same kind projected in this forward, first layer first.
            inputs: inputs of the forward besides the hidden states.
        """

    def restore(self, out: Float[Tensor, "b h i e"]) -> Float[Tensor, "b h i e"]:
        """Change the gathered values, by default not at all; the mods of a list restore in reverse order."""
        return out


ValueModFactory = Callable[[AttentionShape], ValueMod]
"""Called with the sizes of the attention layer."""
