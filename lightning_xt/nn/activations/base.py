"""The contract of an activation: the nonlinearity between the maps of a feedforward."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn


class Activation(nn.Module, ABC):
    """Activation function of the hidden features of each token."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "... f"]) -> Float[Tensor, "... f"]: ...


ActivationFactory = Callable[[], Activation]
