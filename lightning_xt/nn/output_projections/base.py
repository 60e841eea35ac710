"""The contract of an output projection: joins the gathered values of the heads."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import AttentionShape


class OutputProjection(nn.Module, ABC):
    """Map from the gathered values of all heads to the stream, in place of one linear map."""

    @abstractmethod
    def forward(
        self, joined: Float[Tensor, "b i _"], x: Float[Tensor, "b i D"], inputs: Inputs
    ) -> Float[Tensor, "b i D"]:
        """Map the gathered values.

        Args:
            joined: gathered values of all heads, side by side.
            x: input of the attention.
            inputs: inputs of the forward besides the hidden states.
        """


OutputProjectionFactory = Callable[[AttentionShape], OutputProjection]
"""Called with the sizes of the attention layer."""
