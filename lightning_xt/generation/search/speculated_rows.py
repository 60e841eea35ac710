"""Rows of speculative decoding: their tokens on the host, a model with its cache, sampling at several steps at once."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_xt.generation.batching.prefill import prefill
from lightning_xt.generation.batching.row_inputs import stack_step_inputs
from lightning_xt.generation.batching.row_state import RowState, apply_moves, filter_logits, upcast
from lightning_xt.generation.history import History
from lightning_xt.generation.noise import sample_tokens
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.requests import Request, SamplingParams

Moves = Sequence[tuple[int, int]]
"""Moves of rows: (from, to)."""


class TrackedRow:
    """Row of a numbered request whose tokens the host knows."""

    def __init__(self, number: int, request: Request) -> None:
        self.number = number
        self.request = request
        self.tokens: list[int] = request.prompt.tolist()
        self.soft = request.num_soft_tokens
        self.longest = len(self.tokens) + request.max_new_tokens
        self.finished = False

    @property
    def remaining(self) -> int:
        """Tokens that may still be generated."""
        return self.longest - len(self.tokens)


class CachedModel:
    """Model with a cache of rows, which it can roll back.

    Args:
        model: in evaluation mode.
        rows: the rows; their prompts are prefilled.
        window: tokens that each layer can attend back to. None = the model's own.
        ahead: most tokens that are run at once and may be rolled back.
    """

    def __init__(self, model: Autoregressive, rows: Sequence[TrackedRow], window: int | None, ahead: int) -> None:
        self.model = model
        self._soft = rows[0].soft
        self._capacity = max(row.longest for row in rows)
        self._cache = model.new_cache(len(rows), self._soft + self._capacity, slack=ahead, window=window)
        requests = [row.request for row in rows]
        self.logits = prefill(model, requests, self._cache)
        """Logits of the last forward."""
        self._cached = [len(request.prompt) for request in requests]
        self._set_lengths()
        self._inputs = stack_step_inputs(requests)
        # A model that cannot roll back raises before any token is generated.
        self._cache.truncate(self._soft + self._capacity)

    @property
    def room(self) -> int:
        """Tokens that still fit into every row."""
        return self._capacity - max(self._cached)

    def list_pending(self, rows: Sequence[TrackedRow]) -> list[list[int]]:
        """Return the tokens of each row that are not cached yet."""
        return [row.tokens[cached:] for row, cached in zip(rows, self._cached, strict=True)]

    def extend(self, tokens: Int[Tensor, "b n"], lengths: Sequence[int] | None = None) -> None:
        """Run the model over more tokens of each row.

        Args:
            tokens: ids, padded on the right.
            lengths: tokens of each row without padding, of which only the last is scored. None = all are run and
                scored; padding must be rolled back.
        """
        inputs, (b, n) = self._inputs, tokens.shape
        if inputs is not None and inputs.types is not None:
            inputs = replace(inputs, types=inputs.types.expand(-1, n))
        last_only, lengths = lengths is not None, lengths or [n] * b
        real = torch.tensor(lengths, device=tokens.device) if min(lengths) < n else None
        self.logits = self.model(tokens, lengths=real, inputs=inputs, cache=self._cache, last_only=last_only)
        self._cached = [cached + more for cached, more in zip(self._cached, lengths, strict=True)]
        if real is not None:
            self._set_lengths()

    def keep(self, rows: Sequence[TrackedRow], moves: Moves) -> None:
        """Continue with these rows; roll back to before the newest token of each."""
        if len(rows) < len(self._cached):
            self._cache.retire(moves, len(rows))
            self._cached = apply_moves(self._cached, moves, len(rows))
            self._inputs = stack_step_inputs([row.request for row in rows])
        cached = [min(cached, len(row.tokens) - 1) for cached, row in zip(self._cached, rows, strict=True)]
        lengths = [self._soft + each for each in cached]
        if cached != self._cached:
            uniform = min(lengths) == max(lengths)
            self._cache.truncate(lengths[0] if uniform else torch.tensor(lengths, device=self.logits.device))
            self._cached = cached
        self._cache.set_lengths(lengths)

    def _set_lengths(self) -> None:
        self._cache.set_lengths([self._soft + cached for cached in self._cached])


def sample_steps(
    state: RowState, logits: Float[Tensor, "b n v"], params: SamplingParams, offset: int = 0
) -> tuple[Int[Tensor, "b n"], Float[Tensor, "b n v"]]:
    """Sample tokens at several steps of each row, whose logits are known at once; return them with filtered logits.

    The tokens are written into the rows, beyond their lengths.

    Args:
        state: the rows; beyond their lengths they hold the tokens that the logits assume at earlier steps.
        logits: of each step.
        params: sampling parameters.
        offset: assumed tokens before the first of the steps.
    """
    logits, (b, n, _) = upcast(logits), logits.shape
    at = (state.lengths + offset)[:, None] + torch.arange(n, device=logits.device)
    if params.temperature == 0 and not params.filters:
        tokens, filtered = logits.argmax(dim=-1), logits
    else:
        prompts, seeds = state.prompts.repeat_interleave(n), state.seeds.repeat_interleave(n)
        past = state.tokens.unsqueeze(1).expand(-1, n, -1).flatten(0, 1)
        history = History(past, prompts, at.flatten(), params.end, params.control)
        flat = filter_logits(logits.flatten(0, 1), history, params)
        tokens = sample_tokens(flat, params.temperature, seeds, history.lengths - prompts).view(b, n)
        filtered = flat.view_as(logits)
    state.tokens.scatter_(1, at, tokens)
    return tokens, filtered
