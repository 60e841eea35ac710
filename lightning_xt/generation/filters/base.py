"""The contract of a filter: changes the logits of the next token before one is drawn."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from lightning_xt.generation.history import History


class Filter(ABC):
    """Rescales logits, or rules words out by setting theirs to minus infinity; at least one word stays."""

    @abstractmethod
    def __call__(self, logits: Float[Tensor, "b v"], history: History) -> Float[Tensor, "b v"]:
        """The changed logits.

        Args:
            logits: of the next token, divided by the temperature.
            history: the tokens before it.
        """

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in vars(self).items() if name[0] != "_")
        return f"{type(self).__name__}({options})"


FilterFactory = Callable[[], Filter]
