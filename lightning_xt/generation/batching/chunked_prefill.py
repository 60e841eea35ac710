"""Prefill of waiting requests, in pieces between decode steps."""

from collections.abc import Sequence
from dataclasses import fields

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.batching.prefill import prefill
from lightning_xt.generation.batching.row_inputs import step_inputs
from lightning_xt.generation.batching.running_batch import RequestState, RunningBatch
from lightning_xt.generation.protocol import Autoregressive


class ChunkedPrefill:
    """Prefill of a group of requests; the prompt of a single one is read in pieces (Agrawal et al., 2023, SARATHI).

    https://arxiv.org/abs/2308.16369
    Requests with the same prompt and inputs, such as several sequences of one prompt, share its prefill.

    Args:
        model: in evaluation mode.
        states: requests with prompts of similar lengths.
        capacity: most tokens of a row.
        growing: whether the cache has room for `capacity` tokens; otherwise for the prompts only.
        window: window of the cache.
        piece: most tokens of a piece. None = each prompt is read at once.
    """

    def __init__(
        self,
        model: Autoregressive,
        states: Sequence[RequestState],
        capacity: int,
        *,
        growing: bool,
        window: int | None,
        piece: int | None = None,
    ) -> None:
        self.states = list(states)
        self._model, self._capacity = model, capacity
        kinds = [(id(state.request.prompt), id(state.request.inputs)) for state in states]
        first = list(dict.fromkeys(kinds))
        self._order = [first.index(kind) for kind in kinds]
        self._requests = [states[kinds.index(kind)].request for kind in first]
        room = capacity if growing else max(request.prompt_length for request in self._requests)
        self._cache = model.new_cache(len(self._requests), room, window=window)
        single = self._requests[0] if len(self._requests) == 1 else None
        cut = piece is not None and single is not None and _is_divisible(single.inputs)
        self._piece = piece if cut and piece is not None else room
        self._read = 0
        self.logits: Float[Tensor, "b v"] | None = None
        """Scores of the token after each prompt, once all prompts are read."""

    def advance(self) -> int:
        """Read the next piece; return the number of its tokens, padding included."""
        requests, longest = self._requests, max(len(request.prompt) for request in self._requests)
        if longest <= self._piece:
            logits = prefill(self._model, requests, self._cache)
            tokens = longest * len(requests)
        else:
            (request,) = requests
            piece = request.prompt[None, self._read : self._read + self._piece]
            # A context is read once, with the first piece.
            inputs = request.inputs if self._read == 0 else step_inputs(request.inputs)
            logits = self._model(piece, inputs=inputs, cache=self._cache, last_only=True)
            tokens = piece.shape[1]
        self._read += tokens
        if self._read >= longest:
            self.logits = logits[:, -1]
        return tokens

    def finish(self, logits: Float[Tensor, "b v"]) -> RunningBatch:
        """Sample the first token of each request by the scores of the token after its prompt."""
        if len(self._order) > len(self._requests):
            order = torch.tensor(self._order, device=logits.device)
            self._cache.select(order)
            logits = logits[order]
        return RunningBatch(self._model, self.states, self._cache, logits, self._capacity)


def _is_divisible(inputs: Inputs | None) -> bool:
    """Return True if a prompt with these inputs can be read in pieces: no input belongs to single tokens."""
    if inputs is None:
        return True
    given = {field.name for field in fields(inputs) if getattr(inputs, field.name) is not None}
    one_a_row = inputs.condition is None or inputs.condition.dim() == 2
    return one_a_row and given <= {"condition", "context", "context_mask"}
