"""The contract of an objective: from a model and a batch to a loss."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.memories import Memories
from lightning_xt.core.shapes import ObjectiveShape
from lightning_xt.core.trace import Trace


@runtime_checkable
class LanguageModelLike(Protocol):
    """A model as objectives call it."""

    def __call__(
        self, tokens: Int[Tensor, "b n"], *, inputs: Inputs | None = None, trace: Trace
    ) -> tuple[Float[Tensor, "b n v"], Trace]: ...


@dataclass(frozen=True, eq=False)
class Loss:
    """The negative log-likelihood of a batch, in nats.

    Args:
        mean: mean over the targets that count.
        total: sum over the targets that count.
        count: number of targets that count.
        terms: weighted auxiliary terms by name, in training.
        logits: logits from which it was computed, if the objective keeps them.
        memories: memories for the tokens that follow. None = none, or the objective does not keep it.
    """

    mean: Float[Tensor, ""]
    total: Float[Tensor, ""]
    count: Int[Tensor, ""]
    terms: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)
    logits: Float[Tensor, "b _ v"] | None = None
    memories: Memories | None = None

    @property
    def minimised(self) -> Float[Tensor, ""]:
        """The mean and the auxiliary terms, which training minimises."""
        return self.mean + sum(self.terms.values()) if self.terms else self.mean


class Objective(nn.Module, ABC):
    """Loss of a model on a batch of tokens."""

    visible_prompts: ClassVar[bool] = False
    """True if a model that is trained by it generates with a prompt that all tokens see (prefix language models)."""
    step_seed: int | None = None
    """Seed of the random choices of a training step, equal in all processes. None = they use torch's generator."""
    training_only: str | None = None
    """Name of what the loss includes in training only. None = nothing."""

    def exclude(self, ids: Sequence[int]) -> None:
        """Exclude ids that no target has from what training spreads over the vocabulary; by default, do nothing."""

    @abstractmethod
    def forward(
        self,
        model: LanguageModelLike,
        tokens: Int[Tensor, "b t"],
        scored: Bool[Tensor, "b n"] | None = None,
        inputs: Inputs | None = None,
    ) -> Loss:
        """Compute the loss of predicting each token from those before it.

        Args:
            model: from n tokens to logits of the token after each, and to the trace of the forward.
            tokens: n + 1 ids per row; the shift by one happens here. -100 is not a target, and the model reads id 0 in
                its place.
            scored: True for each of the n targets that counts. None = all.
            inputs: the model's inputs besides the n tokens.
        """


ObjectiveFactory = Callable[[ObjectiveShape], Objective]
"""Called with the sizes, the special ids and the ends of the model."""
