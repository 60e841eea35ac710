"""Logits of an exported step, for the comparison with the model."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_xt.exchange.step.step_program import StepProgram

Runner = Callable[..., Sequence[Tensor]]
"""Called with the inputs of a program in order; returns its outputs."""


class StepScorer:
    """Scorer of sequences by an exported decode step, after the encoder if there is one.

    A sequence that continues the one before is given token by token to the cache that there is; any other one begins
    again, with as many tokens at once as a call takes.

    Args:
        programs: the encoder, if there is one, and the decode step.
        runners: runners of the programs.
    """

    def __init__(self, programs: Sequence[StepProgram], runners: Sequence[Runner]) -> None:
        self._step, self._runners = programs[-1], runners
        self._most = self._step.limits.get("tokens", (1, 1))[1] or 1
        self._known: tuple[Int[Tensor, "1 _"], ...] = ()
        self._logits: list[Tensor] = []
        self._context: list[Tensor] = []
        self._cache: Sequence[Tensor] = ()

    def __call__(self, *ids: Int[Tensor, "1 _"]) -> Float[Tensor, "1 n v"]:
        """Return the logits after each token of the last sequence, given the others."""
        *source, tokens = ids
        known = [*source, tokens[:, : self._known[-1].shape[1]]] if self._known else []
        if not known or not all(map(torch.equal, self._known, known)):
            self._begin(*source)
        start = sum(each.shape[1] for each in self._logits)
        for at in range(start, tokens.shape[1], self._most):
            new, lengths = tokens[:, at : at + self._most], torch.tensor([at])
            made = self._runners[-1](new, lengths, *self._context, *self._cache)
            self._logits.append(made[0])
            self._cache = made[1:]
        self._known = ids
        return torch.cat(self._logits, dim=1)

    def _begin(self, *source: Int[Tensor, "1 m"]) -> None:
        """Encode the source, if there is one, and empty the cache."""
        self._logits, self._context = [], []
        if source:
            mask = torch.ones_like(source[0], dtype=torch.bool)
            self._context = [mask, *self._runners[0](source[0], mask)]
        cache = [port.example for port in self._step.inputs if port.role == "cache"]
        self._cache = [each.new_zeros(1, *each.shape[1:]) for each in cache]
