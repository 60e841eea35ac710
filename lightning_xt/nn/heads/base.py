"""The contract of a head: from the last hidden state to logits."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn


class Head(nn.Module, ABC):
    """Map from the last hidden state to a score for every token of the vocabulary."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "b n D"]) -> Float[Tensor, "b n v"]: ...


HeadFactory = Callable[[nn.Embedding], Head]
"""Called with the token embedding, for its sizes and, in a tied head, its weights."""
