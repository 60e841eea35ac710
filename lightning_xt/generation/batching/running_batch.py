"""The batch of requests being decoded."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_xt.generation.batching.prefill import prefill
from lightning_xt.generation.batching.row_inputs import stack_step_inputs
from lightning_xt.generation.batching.row_state import RowState, apply_moves, plan_compaction
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.requests import GeneratedToken, Request, SamplingParams


@dataclass(eq=False)
class RequestState:
    """State of a request on the host.

    Args:
        number: number of the request.
        request: prompt and limits.
        generated: tokens generated so far.
        finished: whether it needs no more tokens.
    """

    number: int
    request: Request
    generated: int = 0
    finished: bool = False

    @property
    def remaining(self) -> int:
        """Tokens that may still be generated."""
        return self.request.max_new_tokens - self.generated

    @property
    def cached(self) -> int:
        """Tokens in the cache: all but the newest; none once the request is finished."""
        return 0 if self.finished else self.request.prompt_length + self.generated - 1


class RunningBatch:
    """Rows of a cache with their requests, whose prompts are prefilled and whose first tokens are sampled.

    Args:
        model: in evaluation mode.
        states: one per row.
        params: sampling parameters.
        capacity: most tokens a row will ever hold, whichever request is placed there.
        growing: whether the cache has room for `capacity` tokens; otherwise for the prompts only.
    """

    def __init__(
        self,
        model: Autoregressive,
        states: Sequence[RequestState],
        params: SamplingParams,
        capacity: int,
        growing: bool,
    ) -> None:
        self.model, self.states, self.params = model, list(states), params
        requests = [state.request for state in states]
        self.rows = RowState.from_requests(requests, capacity)
        self._sampled: list[tuple[Tensor, Tensor]] = []
        room = capacity if growing else max(request.prompt_length for request in requests)
        self.cache = model.new_cache(len(states), room, window=params.window)
        logits = prefill(model, requests, self.cache)
        self._inputs = stack_step_inputs(requests)
        self._sample(logits[:, -1])

    def step(self) -> None:
        """Sample one more token in each row."""
        tokens = self.rows.newest[:, None]
        self._sample(self.model(tokens, inputs=self._inputs, cache=self.cache, last_only=True)[:, -1])

    def collect(self) -> list[GeneratedToken]:
        """Return the tokens sampled since the last call, step by step. Only here the host waits for the device."""
        tokens = torch.stack([token for token, _ in self._sampled]).tolist()
        log_probs = torch.stack([log_prob for _, log_prob in self._sampled]).tolist()
        self._sampled = []
        collected = []
        for step_tokens, step_log_probs in zip(tokens, log_probs, strict=True):
            for state, token, log_prob in zip(self.states, step_tokens, step_log_probs, strict=True):
                if state.finished:
                    continue
                state.generated += 1
                state.finished = self.params.ends(state.number, token) or state.remaining == 0
                collected.append(GeneratedToken(state.number, token, log_prob, state.finished))
        return collected

    def overwrite(self, at: Sequence[int], other: "RunningBatch") -> None:
        """Overwrite some rows by those of another batch."""
        rows = torch.tensor(at, device=self.rows.lengths.device)
        self.rows.overwrite(rows, other.rows)
        self.cache.overwrite(rows, other.cache)
        for place, state in zip(at, other.states, strict=True):
            self.states[place] = state

    def widen(self, rows: int) -> None:
        """Add rows for requests to be placed in."""
        order = torch.tensor([*range(len(self.states)), *[0] * rows], device=self.rows.lengths.device)
        self.rows.select(order)
        self.cache.select(order)
        self.states += [self.states[0]] * rows

    def compact(self) -> None:
        """Drop finished rows: the last rows move into their places, and the batch becomes smaller."""
        moves, alive = plan_compaction([state.finished for state in self.states])
        order = apply_moves(range(len(self.states)), moves, alive)
        self.states = [self.states[each] for each in order]
        if alive:
            self.rows.select(torch.tensor(order, device=self.rows.lengths.device))
            self.cache.retire(moves, alive)

    def clear_finished(self) -> None:
        """Clear finished rows that are still in the batch."""
        at = [place for place, state in enumerate(self.states) if state.finished]
        rows = torch.tensor(at, dtype=torch.long, device=self.rows.lengths.device)
        self.rows.clear(rows)
        self.cache.clear(rows)

    def commit(self) -> None:
        """Complete changes of rows: set the cache's lengths and the inputs of steps."""
        self.cache.set_lengths([state.cached for state in self.states])
        self._inputs = stack_step_inputs([state.request for state in self.states])

    def _sample(self, logits: Float[Tensor, "b v"]) -> None:
        self._sampled.append(self.rows.sample(logits, self.params))
