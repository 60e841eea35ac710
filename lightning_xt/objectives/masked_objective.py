"""The contract of a masked language model's objective: it hides tokens of a row, which the model predicts."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import ObjectiveShape
from lightning_xt.core.trace import Trace
from lightning_xt.objectives.base import Loss, Objective
from lightning_xt.objectives.cross_entropy import IGNORED, cross_entropy


@runtime_checkable
class MaskedModelLike(Protocol):
    """A masked language model as objectives call it."""

    def __call__(
        self, tokens: Int[Tensor, "b n"], *, places: Int[Tensor, "b k"], inputs: Inputs | None = None, trace: Trace
    ) -> tuple[Float[Tensor, "b k v"], Trace]: ...


class Corruption(NamedTuple):
    """Rows as the model reads them, and what it must predict.

    Args:
        tokens: ids to read.
        places: index in its row of each token to predict.
        targets: the tokens to predict; -100 is not a target.
    """

    tokens: Int[Tensor, "b n"]
    places: Int[Tensor, "b k"]
    targets: Int[Tensor, "b k"]


class MaskedObjective(Objective):
    """Loss of predicting some tokens of a row from all others, before and after them.

    The model reads the last n of n + 1 tokens, as many as a decoder reads.
    """

    @abstractmethod
    def corrupt(self, tokens: Int[Tensor, "b n"], real: Bool[Tensor, "b n"]) -> Corruption:
        """Choose the tokens to predict, and hide them.

        Args:
            tokens: ids.
            real: False for padding, which is never chosen.
        """

    def predict(
        self,
        model: MaskedModelLike,
        tokens: Int[Tensor, "b t"],
        scored: Bool[Tensor, "b n"] | None = None,
        inputs: Inputs | None = None,
    ) -> tuple[Float[Tensor, "b k v"], Int[Tensor, "b k"], Trace]:
        """Return logits, targets (-100 if they do not count) and the trace; the arguments are those of `forward`."""
        read = tokens[:, 1:]
        known = read != IGNORED
        real = known if scored is None else known & _find_real(scored)
        corrupted, places, targets = self.corrupt(read.masked_fill(~known, 0), real)
        if scored is not None:
            targets = targets.masked_fill(~scored.gather(1, places), IGNORED)
            inputs, padding = inputs or Inputs(), ~_find_real(scored)
            hidden = padding if inputs.hidden_tokens is None else inputs.hidden_tokens | padding
            inputs = replace(inputs, hidden_tokens=hidden, scored=scored)
        logits, trace = model(corrupted, places=places, inputs=inputs, trace=Trace())
        return logits, targets, trace

    def forward(  # type: ignore[override]  # a masked language model also reads places
        self,
        model: MaskedModelLike,
        tokens: Int[Tensor, "b t"],
        scored: Bool[Tensor, "b n"] | None = None,
        inputs: Inputs | None = None,
    ) -> Loss:
        """Compute the loss of predicting the chosen tokens.

        Args:
            model: from n tokens and the places of k of them to logits of those k, and to the trace of the forward.
            tokens: n + 1 ids per row; the first one is not read. -100 is not a target, and the model reads id 0 in its
                place.
            scored: True for each of the n tokens that counts if it is chosen; those after the last one are padding.
                None = all count.
            inputs: the model's inputs besides the n tokens.
        """
        logits, targets, trace = self.predict(model, tokens, scored, inputs)
        return replace(cross_entropy(logits, targets), terms=trace.sum_losses(), logits=logits)


def _find_real(scored: Bool[Tensor, "b n"]) -> Bool[Tensor, "b n"]:
    """Return where tokens are not padding: up to the last one that counts, and at the first place of every row."""
    real = scored.flip(1).cummax(dim=1).values.flip(1)
    # A row without a token that counts must see something.
    return torch.cat((torch.ones_like(real[:, :1]), real[:, 1:]), dim=1)


MaskedObjectiveFactory = Callable[[ObjectiveShape], MaskedObjective]
"""Called with the sizes, the special ids and the ends of the model."""
