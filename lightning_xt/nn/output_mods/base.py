"""The contract of an output mod: changes the gathered values of each head before heads are joined."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.shapes import AttentionShape


class OutputMod(nn.Module, ABC):
    """Scale or gate of the gathered values of each token and head."""

    reads_values: ClassVar[bool] = False
    """True if a variant reads the values of the token itself, which cross-attention does not have."""

    removes_own: ClassVar[bool] = False
    """True if a variant removes what was gathered along the value of the token itself."""

    @abstractmethod
    def forward(
        self, out: Float[Tensor, "b h i e"], x: Float[Tensor, "b i D"], own: Float[Tensor, "b g i e"] | None
    ) -> Float[Tensor, "b h i e"]:
        """Change the gathered values.

        Args:
            out: gathered values from attention, or from the mod before.
            x: input of the attention.
            own: values of the tokens themselves, after the value mods. None in cross-attention.
        """


OutputModFactory = Callable[[AttentionShape], OutputMod]
"""Called with the sizes of the attention layer."""
