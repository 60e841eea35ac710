"""Models around a model."""

from abc import ABC, abstractmethod

from jaxtyping import Float, Int
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.protocol import Autoregressive, DecodingCache


class ModelWrapper(ABC):
    """Keeps the protocol of a model by another one: its mode, vocabulary and greatest length.

    Args:
        model: what reads.
    """

    def __init__(self, model: Autoregressive) -> None:
        self.model = model

    @abstractmethod
    def __call__(
        self,
        tokens: Int[Tensor, "b n"],
        *,
        lengths: Int[Tensor, " b"] | None = None,
        inputs: Inputs | None = None,
        cache: DecodingCache | None = None,
        last_only: bool = False,
    ) -> Float[Tensor, "b _ v"]:
        """Scores of the token after each of the given ones; arguments as of the model."""

    @abstractmethod
    def new_cache(self, batch: int, capacity: int, *, slack: int = 64, window: int | None = None) -> DecodingCache:
        """An empty memory for decoding; arguments as of the model."""

    @property
    def training(self) -> bool:
        """Whether the model is in training mode."""
        return self.model.training

    def train(self, mode: bool = True) -> "ModelWrapper":
        """Puts the model into training or evaluation mode."""
        self.model.train(mode)
        return self

    @property
    def vocab_size(self) -> int:
        """Number of different tokens."""
        return self.model.vocab_size

    @property
    def max_length(self) -> int | None:
        """Longest sequence the model can read, in tokens. None = any."""
        return self.model.max_length
