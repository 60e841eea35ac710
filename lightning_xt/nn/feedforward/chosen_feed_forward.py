"""Feedforward that is another one, chosen by the layer."""

from abc import abstractmethod

from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.nn.feedforward.base import FeedForward


class ChosenFeedForward(FeedForward):
    """Feedforward that hands everything to another one, which its constructor chooses by the layer."""

    feedforward: FeedForward

    @abstractmethod
    def __init__(self) -> None:
        super().__init__()

    def transform(
        self, x: Float[Tensor, "b n D"], where: Where, inputs: Inputs, trace: Trace
    ) -> tuple[Float[Tensor, "b n D"], Trace]:
        return self.feedforward.transform(x, where, inputs, trace)

    def forward(self, x: Float[Tensor, "b n D"]) -> Float[Tensor, "b n D"]:
        out: Tensor = self.feedforward(x)
        return out
