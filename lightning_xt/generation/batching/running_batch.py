"""The batch of requests being decoded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_xt.generation.batching.row_inputs import stack_step_inputs
from lightning_xt.generation.batching.row_state import (
    RowState,
    SampledTokens,
    apply_moves,
    group_rows,
    plan_compaction,
)
from lightning_xt.generation.protocol import Autoregressive, DecodingCache
from lightning_xt.generation.requests import GeneratedToken, Request, SamplingParams

Alternatives = Sequence[tuple[int, float]]
"""Ids and log-probabilities of the most likely tokens of a row, most likely first."""


@dataclass(eq=False)
class RequestState:
    """State of a request on the host.

    Args:
        number: number of the request.
        request: prompt and limits.
        params: sampling parameters.
        generated: tokens generated so far.
        finished: whether it needs no more tokens.
        failed: whether an error ended it.
    """

    number: int
    request: Request
    params: SamplingParams
    generated: int = 0
    finished: bool = False
    failed: bool = False

    @property
    def remaining(self) -> int:
        """Tokens that may still be generated."""
        return self.request.max_new_tokens - self.generated

    @property
    def cached(self) -> int:
        """Tokens in the cache: all but the newest; none once the request is finished."""
        return 0 if self.finished else self.request.prompt_length + self.generated - 1

    def take(self, token: int, log_prob: float, alternatives: Alternatives) -> GeneratedToken:
        """Count a sampled token; ValueError if the scores behind it are not finite."""
        self.generated += 1
        self.finished = self.params.ends(self.number, token) or self.remaining == 0
        likely = tuple(alternatives[: self.params.alternatives])
        return GeneratedToken(self.number, token, log_prob, self.finished, alternatives=likely)


class RunningBatch:
    """Rows of a cache with their requests, whose prompts are prefilled and whose first tokens are sampled.

    Args:
        model: in evaluation mode.
        states: one per row.
        cache: holds the prompts.
        logits: scores of the token after each prompt.
        capacity: most tokens a row will ever hold, whichever request is placed there.
    """

    def __init__(
        self,
        model: Autoregressive,
        states: Sequence[RequestState],
        cache: DecodingCache,
        logits: Float[Tensor, "b v"],
        capacity: int,
    ) -> None:
        self.model, self.states, self.cache = model, list(states), cache
        requests = [state.request for state in states]
        self.rows = RowState.from_requests(requests, capacity)
        self._sampled: list[SampledTokens] = []
        self._prepare_steps()
        self._sample(logits)

    @property
    def alive(self) -> list[RequestState]:
        """States of the requests that need more tokens."""
        return [state for state in self.states if not state.finished]

    @property
    def free(self) -> list[int]:
        """Rows without a request that needs more tokens."""
        return [row for row, state in enumerate(self.states) if state.finished]

    @property
    def failed(self) -> bool:
        """True if an error ended a request, whose row is still there."""
        return any(state.failed for state in self.states)

    def step(self) -> None:
        """Sample one more token in each row."""
        tokens = self.rows.newest[:, None]
        self._sample(self.model(tokens, inputs=self._inputs, cache=self.cache, last_only=True)[:, -1])

    def collect(self, on_error: Callable[[int, Exception], None] | None = None) -> list[GeneratedToken]:
        """Return the tokens sampled since the last call, step by step. Only here the host waits for the device.

        Args:
            on_error: called with the number of a request and the error that ends it. None = the error is raised.
        """
        collected = []
        steps, self._sampled = self._sampled, []
        tokens = torch.stack([each.tokens for each in steps]).tolist()
        log_probs = torch.stack([each.log_probs for each in steps]).tolist()
        for step, sampled in enumerate(steps):
            alternatives = _read_alternatives(sampled)
            for row, state in enumerate(self.states):
                if state.finished:
                    continue
                try:
                    collected.append(state.take(tokens[step][row], log_probs[step][row], alternatives[row]))
                except Exception as error:
                    if on_error is None:
                        raise
                    state.finished = state.failed = True
                    on_error(state.number, error)
        return collected

    def overwrite(self, at: Sequence[int], other: "RunningBatch") -> None:
        """Overwrite some rows by those of another batch."""
        rows = torch.tensor(at, device=self.rows.lengths.device)
        self.rows.overwrite(rows, other.rows)
        self.cache.overwrite(rows, other.cache)
        for place, state in zip(at, other.states, strict=True):
            self.states[place] = state

    def widen(self, rows: int, reserve: int) -> None:
        """Add free rows up to a number of rows, in memory that has room for `reserve` rows."""
        self.rows.widen(rows)
        self.cache.widen(rows, reserve)
        first = self.states[0]
        free = RequestState(first.number, first.request, first.params, finished=True)
        self.states += [free] * (rows - len(self.states))

    def compact(self) -> None:
        """Drop finished rows: the last rows move into their places, and the batch becomes smaller.

        One row stays if all are finished, and with it the memory of the cache.
        """
        moves, alive = plan_compaction([state.finished for state in self.states])
        failed = self.failed
        order = apply_moves(range(len(self.states)), moves, max(alive, 1))
        self.states = [self.states[each] for each in order]
        at = torch.tensor(order, device=self.rows.lengths.device)
        self.rows.select(at)
        if failed:
            # What is not finite must not stay in the memory of rows to come: even with weight 0 it would spread.
            self.cache.select(at)
        else:
            self.cache.retire(moves, len(order))
        self.clear_finished()

    def clear_finished(self) -> None:
        """Clear finished rows that are still in the batch."""
        rows = torch.tensor(self.free, dtype=torch.long, device=self.rows.lengths.device)
        if len(rows) > 0:
            self.rows.clear(rows)
            self.cache.clear(rows)

    def commit(self) -> None:
        """Complete changes of rows: set the cache's lengths and the inputs of steps."""
        self.cache.set_lengths([state.cached for state in self.states])
        self._prepare_steps()

    def _prepare_steps(self) -> None:
        """Prepare what stays the same until the rows change."""
        self._inputs = stack_step_inputs([state.request for state in self.states])
        params = [state.params for state in self.states]
        self._groups = group_rows(params, self.rows.lengths.device)
        self._likely = max(each.alternatives for each in params)

    def _sample(self, logits: Float[Tensor, "b v"]) -> None:
        self._sampled.append(self.rows.sample(logits, self._groups, self._likely))


def _read_alternatives(sampled: SampledTokens) -> list[Alternatives]:
    """Return the alternatives of each row; none if they are not reported."""
    if sampled.alternatives is None:
        return [()] * len(sampled.tokens)
    rows = zip(*(values.tolist() for values in sampled.alternatives), strict=True)
    return [list(zip(ids, log_probs, strict=True)) for log_probs, ids in rows]
