"""Continuous batching: waiting requests take the rows of finished ones.

Prompts of similar lengths are prefilled together. A finished request makes room: the next prompt is prefilled into its
row, or the last row moves there and the batch becomes smaller.
"""

from collections import deque
from collections.abc import Mapping, Sequence

import torch

from lightning_xt.generation.batching.running_batch import RequestState, RunningBatch
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.requests import GeneratedToken, Request, SamplingParams

MAX_PREFILL_TOKENS = 8192
"""Tokens of prompts in one forward, padding included."""
SYNC_EVERY = 16
"""Steps between reads of sampled tokens from a device other than the CPU, because each read waits for the device."""


class Scheduler:
    """Continuous batcher: generate for any number of requests in a fixed number of batch rows.

    Args:
        model: in evaluation mode.
        requests: by their numbers, in the order in which they are admitted.
        params: sampling parameters.
    """

    def __init__(self, model: Autoregressive, requests: Mapping[int, Request], params: SamplingParams) -> None:
        self.model, self.params = model, params
        self.waiting = deque(RequestState(number, request) for number, request in requests.items())
        self.capacity = max(request.total_length for request in requests.values())
        self.on_host = is_on_host(self.waiting[0].request.prompt.device)
        self.batch: RunningBatch | None = None

    @property
    def busy(self) -> bool:
        return self.batch is not None or bool(self.waiting)

    def advance(self) -> list[GeneratedToken]:
        """Generate the next token of each running request, or the next few if each read would wait for a device."""
        if self.batch is None:
            tokens = self._start_batch()
        else:
            alive = [state.remaining for state in self.batch.states if not state.finished]
            for _ in range(1 if self.on_host else min(SYNC_EVERY, *alive)):
                self.batch.step()
            tokens = self.batch.collect()
        return tokens + self._refill()

    def _start_batch(self) -> list[GeneratedToken]:
        first, *others = _group_by_length(self._take_waiting(self.params.batch))
        self.batch = RunningBatch(self.model, first, self.params, self.capacity, growing=True)
        tokens = self.batch.collect()
        if others:
            start = len(first)
            self.batch.widen(sum(map(len, others)))
            for group in others:
                tokens += self._prefill_into(self.batch, group, range(start, start + len(group)))
                start += len(group)
            self.batch.commit()
        return tokens

    def _refill(self) -> list[GeneratedToken]:
        """Give the rows of finished requests to waiting ones, or drop them."""
        tokens: list[GeneratedToken] = []
        batch = self.batch
        if batch is None or not any(state.finished for state in batch.states):
            return tokens
        while self.waiting and (free := [at for at, state in enumerate(batch.states) if state.finished]):
            for group in _group_by_length(self._take_waiting(len(free))):
                tokens += self._prefill_into(batch, group, free[: len(group)])
                free = free[len(group) :]
        alive = sum(not state.finished for state in batch.states)
        # On a CPU every row costs time; elsewhere a smaller batch is hardly faster, and new shapes are slow.
        if self.on_host or alive <= len(batch.states) // 2:
            batch.compact()
        elif alive < len(batch.states):
            batch.clear_finished()
        if alive:
            batch.commit()
        else:
            self.batch = None
        return tokens

    def _prefill_into(
        self, batch: RunningBatch, group: Sequence[RequestState], places: Sequence[int]
    ) -> list[GeneratedToken]:
        new = RunningBatch(self.model, group, self.params, self.capacity, growing=False)
        batch.overwrite(places, new)
        return new.collect()

    def _take_waiting(self, most: int) -> list[RequestState]:
        return [self.waiting.popleft() for _ in range(min(most, len(self.waiting)))]


def is_on_host(device: torch.device) -> bool:
    """Return whether reading a tensor needs no wait for a device."""
    return device.type == "cpu"


def _group_by_length(states: Sequence[RequestState]) -> list[list[RequestState]]:
    """Group requests whose prompts have similar lengths, to waste little on padding."""
    groups: list[list[RequestState]] = []
    for state in sorted(states, key=lambda state: (state.request.num_soft_tokens, state.request.prompt_length)):
        length, group = state.request.prompt_length, groups[-1] if groups else []
        fits = (
            group
            and group[0].request.num_soft_tokens == state.request.num_soft_tokens
            and 4 * (length - group[0].request.prompt_length) <= length + 32
            and length * (len(group) + 1) <= MAX_PREFILL_TOKENS
        )
        if fits:
            group.append(state)
        else:
            groups.append([state])
    return groups
