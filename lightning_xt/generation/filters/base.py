"""The contract of a filter: change the logits of the next token before it is sampled."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from lightning_xt.generation.history import History

Logits = Float[Tensor, "b v"]
"""Scores of the next token of each row, for every token of the vocabulary."""


class Filter(ABC):
    """Change of logits: rescale them, or mask tokens by minus infinity; at least one token stays."""

    options: ClassVar[tuple[str, ...] | None] = None
    """Attributes that decide all that this class does, not a subclass. None = each object may do something else."""

    @abstractmethod
    def __call__(self, logits: Logits, history: History) -> Logits:
        """Return the changed logits of the next token, which are divided by the temperature; `history` is before it."""

    @property
    def key(self) -> Hashable:
        """Key of all that the filter does: a filter may serve the rows of another one with an equal key."""
        # A subclass may do something else with the options that it inherits.
        names = vars(type(self)).get("options")
        return id(self) if names is None else (type(self), *(_freeze(getattr(self, name)) for name in names))

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in vars(self).items() if name[0] != "_")
        return f"{type(self).__name__}({options})"


def _freeze(option: Any) -> Hashable:
    """Return an option as a value that can be compared and hashed."""
    if isinstance(option, dict):
        return tuple(option.items())
    frozen: Hashable = tuple(option) if isinstance(option, list) else option
    return frozen


FilterFactory = Callable[[], Filter]
