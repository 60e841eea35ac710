"""The contract of a feedforward: changes each token separately."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where


class FeedForward(nn.Module, ABC):
    """Map of each token, independent of the other tokens."""

    reads_tokens: ClassVar[bool] = False
    """True if a variant reads token ids, so that it needs the tokens of a row in their order."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "b n D"]) -> Float[Tensor, "b n D"]: ...

    def transform(
        self, x: Float[Tensor, "b n D"], where: Where, inputs: Inputs, trace: Trace
    ) -> tuple[Float[Tensor, "b n D"], Trace]:
        """Transform each token; a variant overrides this if it reads inputs, or adds a term to the loss.

        Args:
            x: input of the feedforward.
            where: positions of the tokens, and those that are valid.
            inputs: inputs of the forward besides the hidden states.
            trace: results of earlier layers, to which terms for the loss are added.
        """
        return self(x), trace


FeedForwardFactory = Callable[[LayerShape], FeedForward]
"""Called with the sizes of the layer."""
