"""The contract of a filter: change the logits of the next token before it is sampled."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from lightning_xt.generation.history import History

Logits = Float[Tensor, "b v"]
"""Scores of the next token of each row, for every token of the vocabulary."""


class Filter(ABC):
    """Change of logits: rescale them, or mask tokens by minus infinity; at least one token stays."""

    @abstractmethod
    def __call__(self, logits: Logits, history: History) -> Logits:
        """Return the changed logits of the next token, which are divided by the temperature; `history` is before it."""

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in vars(self).items() if name[0] != "_")
        return f"{type(self).__name__}({options})"


FilterFactory = Callable[[], Filter]
