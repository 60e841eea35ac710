"""Base class of a model around another model."""

from collections.abc import Sequence

from lightning_xt.generation.protocol import Autoregressive


class ModelWrapper(Autoregressive):
    """Model around another one, with its mode, vocabulary and maximum length; a subclass scores and makes caches.

    Args:
        model: the wrapped model.
    """

    def __init__(self, model: Autoregressive) -> None:
        self.model = model

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

    @property
    def recurrences(self) -> Sequence[str]:
        """Parts of the model with a running state."""
        return self.model.recurrences
