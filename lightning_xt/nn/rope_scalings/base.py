"""The contract of a rotary scaling: new frequencies for sequences longer than those a model was trained on."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor


class RopeScaling(ABC):
    """Map of the frequencies of rotary positions, in radians per token, fastest first."""

    gain: float = 1.0
    """Factor on rotated queries and on rotated keys."""

    @abstractmethod
    def __call__(self, frequencies: Float[Tensor, " d"], base: float) -> Float[Tensor, " d"]: ...


RopeScalingFactory = Callable[[], RopeScaling]
