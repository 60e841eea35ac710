"""The contract of a feedforward: changes each token separately."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.shapes import LayerShape


class FeedForward(nn.Module, ABC):
    """Map of each token, independent of the other tokens."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "b n D"]) -> Float[Tensor, "b n D"]: ...


FeedForwardFactory = Callable[[LayerShape], FeedForward]
"""Called with the sizes of the layer."""
