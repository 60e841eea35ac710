"""The contract of an objective: from a model and a batch to a loss."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs


@runtime_checkable
class LanguageModelLike(Protocol):
    """What an objective knows of a model."""

    def __call__(self, tokens: Int[Tensor, "b n"], *, inputs: Inputs | None = None) -> Float[Tensor, "b n v"]: ...


@dataclass(frozen=True, eq=False)
class Loss:
    """The negative log-likelihood of a batch, in nats.

    Args:
        mean: what is minimised.
        total: sum over the tokens that count.
        count: how many tokens count.
    """

    mean: Float[Tensor, ""]
    total: Float[Tensor, ""]
    count: Int[Tensor, ""]


class Objective(nn.Module, ABC):
    """Scores a model on a batch of tokens."""

    @abstractmethod
    def forward(
        self,
        model: LanguageModelLike,
        tokens: Int[Tensor, "b m"],
        scored: Bool[Tensor, "b n"] | None = None,
        inputs: Inputs | None = None,
    ) -> Loss:
        """The loss of predicting each token from those before it.

        Args:
            model: from n tokens to logits of the token after each.
            tokens: n + 1 ids per row; the shift by one happens here. A last id of -100 is no target; elsewhere it would
                be read, so leave targets out by `scored`.
            scored: which of the n targets count. None = all.
            inputs: what the model needs beside the n tokens it reads.
        """


ObjectiveFactory = Callable[[], Objective]
