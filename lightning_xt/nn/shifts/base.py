"""The contract of a shift: mixes a little of the past into the input of a sublayer."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.where import Where


class Shift(nn.Module, ABC):
    """Mix of neighbouring tokens in the input of a sublayer."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "b n D"], where: Where, cache: CallCache | None) -> Float[Tensor, "b n D"]:
        """Mix the tokens of each row; those that `where.valid` masks change no other token."""


ShiftFactory = Callable[[LayerShape], Shift]
"""Called with the sizes of the layer."""
