"""Rows that are decoded with guesses: what each has, what a model remembers of it, and how its tokens are drawn."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_xt.generation.batching.prefill import read_prompts
from lightning_xt.generation.batching.row_inputs import count_soft_tokens, stack_inputs, step_inputs
from lightning_xt.generation.batching.row_state import RowState, filter_logits, moved, upcast
from lightning_xt.generation.history import History
from lightning_xt.generation.noise import draw
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.requests import Request, SamplingParams

Moves = Sequence[tuple[int, int]]
"""Which row goes into the place of which: (from, to)."""


class TrackedRow:
    """A row whose tokens the host knows.

    Args:
        number: of its request.
        request: what it goes on with.
    """

    def __init__(self, number: int, request: Request) -> None:
        self.number = number
        self.request = request
        self.tokens: list[int] = request.prompt.tolist()
        self.soft = count_soft_tokens(request.inputs)
        self.longest = len(self.tokens) + request.max_new_tokens
        self.finished = False

    @property
    def remaining(self) -> int:
        """Tokens that may still be drawn."""
        return self.longest - len(self.tokens)


class CachedModel:
    """A model that reads rows, and can take back what it has read.

    Args:
        model: in evaluation mode.
        texts: the rows; their prompts are read.
        window: tokens that each layer may look back. None = as the model has it.
        ahead: most tokens that are read at once and may have to be taken back.
    """

    def __init__(self, model: Autoregressive, texts: Sequence[TrackedRow], window: int | None, ahead: int) -> None:
        self.model = model
        self._soft = texts[0].soft
        self._capacity = max(text.longest for text in texts)
        self._memory = model.new_cache(len(texts), self._soft + self._capacity, slack=ahead, window=window)
        requests = [text.request for text in texts]
        self.logits = read_prompts(model, requests, self._memory)
        """Scores of what follows the tokens that were read last."""
        self._held = [len(request.prompt) for request in requests]
        self._settle()
        self._inputs = stack_inputs([step_inputs(request.inputs) for request in requests])
        # A model that cannot take tokens back says so before anything is drawn.
        self._memory.truncate(self._soft + self._capacity)

    @property
    def room(self) -> int:
        """Tokens that still fit into every row."""
        return self._capacity - max(self._held)

    def unread(self, texts: Sequence[TrackedRow]) -> list[list[int]]:
        """Tokens of each row that are still to be read."""
        return [text.tokens[held:] for text, held in zip(texts, self._held, strict=True)]

    def read(self, tokens: Int[Tensor, "b n"], lengths: Sequence[int] | None = None) -> None:
        """Reads more tokens of each row.

        Args:
            tokens: ids, padded on the right.
            lengths: real tokens of each row, of which only the last is scored. None = all are read and scored; those
                that a row has not are to be taken back.
        """
        inputs, (b, n) = self._inputs, tokens.shape
        if inputs is not None and inputs.types is not None:
            inputs = replace(inputs, types=inputs.types.expand(-1, n))
        last_only, lengths = lengths is not None, lengths or [n] * b
        real = torch.tensor(lengths, device=tokens.device) if min(lengths) < n else None
        self.logits = self.model(tokens, lengths=real, inputs=inputs, cache=self._memory, last_only=last_only)
        self._held = [held + more for held, more in zip(self._held, lengths, strict=True)]
        if real is not None:
            self._settle()

    def keep(self, texts: Sequence[TrackedRow], moves: Moves) -> None:
        """Goes on with these rows, and forgets what they do not have; the last token of each is still to be read."""
        if len(texts) < len(self._held):
            self._memory.retire(moves, len(texts))
            self._held = moved(self._held, moves, len(texts))
            self._inputs = stack_inputs([step_inputs(text.request.inputs) for text in texts])
        held = [min(held, len(text.tokens) - 1) for held, text in zip(self._held, texts, strict=True)]
        lengths = [self._soft + each for each in held]
        if held != self._held:
            alike = min(lengths) == max(lengths)
            self._memory.truncate(lengths[0] if alike else torch.tensor(lengths, device=self.logits.device))
            self._held = held
        self._memory.set_lengths(lengths)

    def _settle(self) -> None:
        self._memory.set_lengths([self._soft + held for held in self._held])


def draw_steps(
    rows: RowState, logits: Float[Tensor, "b n v"], choices: SamplingParams, beyond: int = 0
) -> Int[Tensor, "b n"]:
    """The tokens that rows draw at some steps, one after the other, whose scores are known all at once.

    They stand in the rows afterwards, beyond their ends.

    Args:
        rows: the texts, and beyond their ends what the scores suppose was drawn at the steps before.
        logits: scores at each step.
        choices: how tokens are chosen.
        beyond: tokens supposed before the first of the steps.
    """
    logits, (b, n, _) = upcast(logits), logits.shape
    at = (rows.lengths + beyond)[:, None] + torch.arange(n, device=logits.device)
    if choices.temperature == 0 and not choices.filters:
        tokens = logits.argmax(dim=-1)
    else:
        prompts, seeds = rows.prompts.repeat_interleave(n), rows.seeds.repeat_interleave(n)
        past = rows.tokens.unsqueeze(1).expand(-1, n, -1).flatten(0, 1)
        history = History(past, prompts, at.flatten(), choices.end)
        changed = filter_logits(logits.flatten(0, 1), history, choices)
        tokens = draw(changed, choices.temperature, seeds, history.lengths - prompts).view(b, n)
    rows.tokens.scatter_(1, at, tokens)
    return tokens


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> Int[Tensor, "b n"]:
    """Tokens of each row, padded on the right."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
