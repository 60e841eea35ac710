"""The contract of an output mod: changes the gathered values of each head before heads are joined."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.shapes import AttentionShape


class OutputMod(nn.Module, ABC):
    """Scale or gate of the gathered values of each token and head."""

    @abstractmethod
    def forward(self, out: Float[Tensor, "b h i e"], x: Float[Tensor, "b i D"]) -> Float[Tensor, "b h i e"]: ...


OutputModFactory = Callable[[AttentionShape], OutputMod]
"""Called with the sizes of the attention layer."""
