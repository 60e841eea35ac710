"""The contract of a model around another model."""

from abc import ABC, abstractmethod

from jaxtyping import Float, Int
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.protocol import Autoregressive, DecodingCache


class ModelWrapper(ABC):
    """Model around another one, with its mode, vocabulary and maximum length.

    Args:
        model: the wrapped model.
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
        """Score the token after each given token; arguments as of the model."""

    @abstractmethod
    def new_cache(self, batch: int, capacity: int, *, slack: int = 64, window: int | None = None) -> DecodingCache:
        """Return an empty cache; arguments as of the model."""

    @property
    def training(self) -> bool:
        """Training mode of the model."""
        return self.model.training

    def train(self, mode: bool = True) -> "ModelWrapper":
        """Put the model into training or evaluation mode."""
        self.model.train(mode)
        return self

    @property
    def vocab_size(self) -> int:
        """Tokens in the vocabulary."""
        return self.model.vocab_size

    @property
    def max_length(self) -> int | None:
        """Longest sequence of the model, in tokens. None = any length."""
        return self.model.max_length
