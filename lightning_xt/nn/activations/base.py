"""The contract of an activation: one number in, one number out."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn


class Activation(nn.Module, ABC):
    """Activation function of a feedforward, for each feature separately."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]: ...


ActivationFactory = Callable[[], Activation]
