"""The contract of an auxiliary loss: trains hidden states for more than the next token, with trained parameters."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import ObjectiveShape
from lightning_xt.core.trace import Trace


class Auxiliary(nn.Module, ABC):
    """Loss that training adds to that of the next token. Its parameters are saved, but decoding does not use them."""

    name: ClassVar[str]
    """Name in the logs, after `train/`."""

    @abstractmethod
    def forward(
        self, states: Float[Tensor, "b n D"], targets: Int[Tensor, "b n"], inputs: Inputs | None
    ) -> Float[Tensor, ""]:
        """Compute the loss with its weight.

        Args:
            states: hidden states from which the head makes the logits of the targets.
            targets: id of the token after each; -100 is not a target.
            inputs: inputs of the forward besides the tokens.
        """

    def compute(
        self, trace: Trace, logits: Float[Tensor, "b n v"], targets: Int[Tensor, "b n"], inputs: Inputs | None
    ) -> Float[Tensor, ""]:
        """Compute the loss from trace and logits of the forward; overridden by variants that read more than states."""
        if trace.states is None:
            raise ValueError(f"auxiliaries: {type(self).__name__} reads hidden states, which the model did not trace")
        loss: Tensor = self(trace.states, targets, inputs)
        return loss


AuxiliaryFactory = Callable[[ObjectiveShape], Auxiliary]
"""Called with the sizes of the model, its head and its table of embeddings."""
