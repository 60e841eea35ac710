"""The contract of a scale: multiplies the output of a sublayer before the residual."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs, ReadsInput
from lightning_xt.core.shapes import LayerShape


class Scale(ReadsInput, nn.Module, ABC):
    """Factor of a sublayer's output; adaptive scales read their condition from the inputs."""

    @abstractmethod
    def forward(self, out: Float[Tensor, "b n D"], inputs: Inputs) -> Float[Tensor, "b n D"]: ...


ScaleFactory = Callable[[LayerShape], Scale]
"""Called with the sizes of the layer."""
