"""Continuous batching: waiting requests take the rows of finished ones.

A request may come at any time. Prompts of similar lengths are prefilled together, a long one in pieces between decode
steps. A finished or cancelled request makes room: the next prompt is prefilled into its row, or the last row moves
there and the batch becomes smaller.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence

import torch

from lightning_xt.generation.batching.chunked_prefill import ChunkedPrefill
from lightning_xt.generation.batching.running_batch import RequestState, RunningBatch
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.requests import GeneratedToken, Request, SamplingParams

MAX_PREFILL_TOKENS = 8192
"""Tokens of prompts in one forward, padding included."""
SYNC_EVERY = 16
"""Steps between reads of sampled tokens from a device other than the CPU, because each read waits for the device."""


class Scheduler:
    """Continuous batcher: decode requests, which come at any time, in a limited number of batch rows.

    What a request gets does not depend on the others.

    Args:
        model: in evaluation mode.
        rows: most requests that are decoded at once; others wait.
        tokens: most tokens of a row, of the prompt and the completion.
        window: tokens that each layer can attend back to. None = the model's own.
        prefill_tokens: tokens of prompts that are read between two decode steps, about; a longer prompt is read in
            pieces, so that it does not hold up the others. None = the prompts of all free rows are read at once.
        on_error: called with the number of a request and the error that ends it, such as scores that are not finite;
            the others continue. None = the error is raised.
        sync_every: steps between reads of sampled tokens from a device other than the CPU, at least 1.
    """

    def __init__(
        self,
        model: Autoregressive,
        *,
        rows: int,
        tokens: int,
        window: int | None = None,
        prefill_tokens: int | None = None,
        on_error: Callable[[int, Exception], None] | None = None,
        sync_every: int = SYNC_EVERY,
    ) -> None:
        self.model, self.rows, self.tokens, self.window = model, rows, tokens, window
        self.prefill_tokens, self.on_error, self.sync_every = prefill_tokens, on_error, sync_every
        self.on_host = True
        self.batch: RunningBatch | None = None
        self._waiting: deque[RequestState] = deque()
        self._groups: deque[list[RequestState]] = deque()
        """Requests that have been admitted and whose prefill has not begun."""
        self._prefill: ChunkedPrefill | None = None

    @property
    def busy(self) -> bool:
        """True while there are tokens left to generate."""
        return self.running > 0 or self.waiting > 0

    @property
    def running(self) -> int:
        """Number of requests that are being decoded."""
        return 0 if self.batch is None else len(self.batch.alive)

    @property
    def waiting(self) -> int:
        """Number of requests whose first token is not sampled yet."""
        return sum(not state.finished for state in self._list_pending())

    def submit(self, number: int, request: Request, params: SamplingParams) -> None:
        """Add a request, which waits for a free row.

        Args:
            number: number of the request, which no other has.
            request: prompt and limits.
            params: sampling parameters; `batch` and `window` are the scheduler's.

        Raises:
            ValueError: the request has more tokens than a row.
        """
        if request.total_length > self.tokens:
            raise ValueError(
                f"a prompt of {request.prompt_length} tokens and {request.max_new_tokens} more make "
                f"{request.total_length}, but a row has room for {self.tokens}; shorten the prompt or ask for at most "
                f"{max(0, self.tokens - request.prompt_length)} tokens"
            )
        self.on_host = is_on_host(request.prompt.device)
        self._waiting.append(RequestState(number, request, params))

    def cancel(self, number: int) -> None:
        """End a request, whose row is free at the next step; a number without a request is ignored."""
        running = [] if self.batch is None else self.batch.states
        for state in (*running, *self._list_pending()):
            if state.number == number:
                state.finished = True

    def advance(self) -> list[GeneratedToken]:
        """Run a decode step, or several if each read would wait for a device, then prefill waiting requests."""
        self._release()
        tokens = self._decode() + self._admit()
        self._release()
        return tokens

    def _decode(self) -> list[GeneratedToken]:
        """Sample a token of each running request."""
        if self.batch is None or not (alive := self.batch.alive):
            return []
        # A request for which there is a row waits for one step only.
        comes = self._prefill is not None or bool(self._groups) or (bool(self._waiting) and len(alive) < self.rows)
        for _ in range(1 if self.on_host or comes else min(self.sync_every, *(state.remaining for state in alive))):
            self.batch.step()
        tokens = self.batch.collect(self.on_error)
        if self.batch.failed:
            # Before another request is placed in their rows.
            self._release()
        return tokens

    def _admit(self) -> list[GeneratedToken]:
        """Prefill waiting requests for which there is a row, as many as the budget permits."""
        tokens: list[GeneratedToken] = []
        budget = self.prefill_tokens
        while (budget is None or budget > 0) and (prefill := self._next_prefill()) is not None:
            spent = prefill.advance()
            budget = None if budget is None else budget - spent
            if prefill.logits is not None:
                self._prefill = None
                tokens += self._place(prefill.finish(prefill.logits))
        return tokens

    def _next_prefill(self) -> ChunkedPrefill | None:
        """Return the prefill that is next; None if no request waits, or all rows are taken."""
        if self._prefill is not None and all(state.finished for state in self._prefill.states):
            self._prefill = None
        while self._prefill is None:
            if not self._groups and not self._take_waiting():
                return None
            if group := [state for state in self._groups.popleft() if not state.finished]:
                # The first rows stay where they are prefilled.
                self._prefill = ChunkedPrefill(
                    self.model,
                    group,
                    self.tokens,
                    growing=self.batch is None,
                    window=self.window,
                    piece=self.prefill_tokens,
                )
        return self._prefill

    def _take_waiting(self) -> bool:
        """Admit waiting requests, as many as rows are free; return False if there is none."""
        self._waiting = deque(state for state in self._waiting if not state.finished)
        admitted = [self._waiting.popleft() for _ in range(min(self.rows - self.running, len(self._waiting)))]
        self._groups.extend(_group_by_length(admitted, self.prefill_tokens or MAX_PREFILL_TOKENS))
        return bool(admitted)

    def _place(self, new: RunningBatch) -> list[GeneratedToken]:
        """Place prefilled requests into free rows, and into new ones if there are too few."""
        tokens = new.collect(self.on_error)
        if new.failed:
            if not new.alive:
                return tokens
            new.compact()
            new.commit()
        batch = self.batch
        if batch is None:
            self.batch = new
            return tokens
        free, rows = batch.free, len(batch.states)
        if (missing := len(new.states) - len(free)) > 0:
            batch.widen(rows + missing, min(self.rows, max(2 * rows, rows + missing + self.waiting)))
            free += range(rows, rows + missing)
        batch.overwrite(free[: len(new.states)], new)
        batch.commit()
        return tokens

    def _release(self) -> None:
        """Drop the rows of finished requests."""
        batch = self.batch
        # A single row keeps the memory of the cache until a request comes.
        if batch is None or not batch.free or (len(batch.states) == 1 and not batch.failed):
            return
        if batch.failed and not batch.alive:
            self.batch = None
            return
        # On a CPU every row costs time; elsewhere a smaller batch is hardly faster, and new shapes are slow.
        if self.on_host or batch.failed or len(batch.alive) <= len(batch.states) // 2:
            batch.compact()
        else:
            batch.clear_finished()
        batch.commit()

    def _list_pending(self) -> Iterable[RequestState]:
        """List the requests that are not in a row yet."""
        yield from self._waiting
        for group in self._groups:
            yield from group
        if self._prefill is not None:
            yield from self._prefill.states


def is_on_host(device: torch.device) -> bool:
    """Return whether reading a tensor needs no wait for a device."""
    return device.type == "cpu"


def _group_by_length(states: Sequence[RequestState], limit: int) -> list[list[RequestState]]:
    """Group requests whose prompts have similar lengths, to waste little on padding, up to a number of tokens."""
    groups: list[list[RequestState]] = []
    for state in sorted(states, key=lambda state: (state.request.num_soft_tokens, state.request.prompt_length)):
        length, group = state.request.prompt_length, groups[-1] if groups else []
        fits = (
            group
            and group[0].request.num_soft_tokens == state.request.num_soft_tokens
            and 4 * (length - group[0].request.prompt_length) <= length + 32
            and length * (len(group) + 1) <= limit
        )
        if fits:
            group.append(state)
        else:
            groups.append([state])
    return groups
