"""Texts that are written side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.batching.prefill import read_prompts
from lightning_xt.generation.batching.row_inputs import count_soft_tokens, stack_inputs, step_inputs
from lightning_xt.generation.batching.row_state import RowState, moved, plan_compaction
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.requests import GeneratedToken, Request, SamplingParams


@dataclass(eq=False)
class RequestState:
    """What the host knows of a row.

    Args:
        number: of the request.
        request: what was asked for.
        drawn: tokens drawn.
        finished: whether no more are wanted.
    """

    number: int
    request: Request
    drawn: int = 0
    finished: bool = False

    @property
    def remaining(self) -> int:
        """Tokens that may still be drawn."""
        return self.request.max_new_tokens - self.drawn

    @property
    def read(self) -> int:
        """Tokens of the prompt, soft ones included."""
        return count_soft_tokens(self.request.inputs) + len(self.request.prompt)

    @property
    def remembered(self) -> int:
        """Tokens in the model's memory: all but the last drawn; none once nobody asks for more."""
        return 0 if self.finished else self.read + self.drawn - 1


class RunningBatch:
    """Rows of a model's memory with their texts; their prompts have been read, and their first tokens drawn.

    Args:
        model: in evaluation mode.
        texts: one a row.
        choices: how tokens are chosen.
        capacity: most tokens a row will ever hold, whichever text is put there.
        growing: whether the memory has room for them all; else for the prompts alone.
    """

    def __init__(
        self,
        model: Autoregressive,
        texts: Sequence[RequestState],
        choices: SamplingParams,
        capacity: int,
        growing: bool,
    ) -> None:
        self.model, self.texts, self.choices = model, list(texts), choices
        requests = [text.request for text in texts]
        self.rows = RowState.of(requests, capacity)
        self._drawn: list[tuple[Tensor, Tensor]] = []
        room = capacity if growing else max(text.read for text in texts)
        self.memory = model.new_cache(len(texts), room, window=choices.window)
        logits = read_prompts(model, requests, self.memory)
        self._inputs = self._step_inputs()
        self._draw(logits[:, -1])

    def step(self) -> None:
        """Draws one more token in each row."""
        tokens = self.rows.newest[:, None]
        self._draw(self.model(tokens, inputs=self._inputs, cache=self.memory, last_only=True)[:, -1])

    def collect(self) -> list[GeneratedToken]:
        """What was drawn since the last time, step by step; a device is waited for here alone."""
        tokens = torch.stack([token for token, _ in self._drawn]).tolist()
        log_probs = torch.stack([log_prob for _, log_prob in self._drawn]).tolist()
        self._drawn = []
        heard = []
        for step_tokens, step_log_probs in zip(tokens, log_probs, strict=True):
            for text, token, log_prob in zip(self.texts, step_tokens, step_log_probs, strict=True):
                if text.finished:
                    continue
                text.drawn += 1
                stopped = self.choices.stop is not None and self.choices.stop(text.number, token)
                text.finished = stopped or text.remaining == 0 or token == self.choices.end
                heard.append(GeneratedToken(text.number, token, log_prob, text.finished))
        return heard

    def place(self, at: Sequence[int], other: "RunningBatch") -> None:
        """Puts the rows of another batch in the place of some."""
        rows = torch.tensor(at, device=self.rows.lengths.device)
        self.rows.place(rows, other.rows)
        self.memory.place(rows, other.memory)
        for place, text in zip(at, other.texts, strict=True):
            self.texts[place] = text

    def widen(self, rows: int) -> None:
        """Adds rows for others to be put there."""
        order = torch.tensor([*range(len(self.texts)), *[0] * rows], device=self.rows.lengths.device)
        self.rows.select(order)
        self.memory.select(order)
        self.texts += [self.texts[0]] * rows

    def compact(self) -> None:
        """Lets finished texts go: the last rows move into their places, and the batch becomes smaller."""
        moves, alive = plan_compaction([text.finished for text in self.texts])
        order = moved(range(len(self.texts)), moves, alive)
        self.texts = [self.texts[each] for each in order]
        if alive:
            self.rows.select(torch.tensor(order, device=self.rows.lengths.device))
            self.memory.retire(moves, alive)

    def forget(self) -> None:
        """Empties the rows of finished texts, which stay for now."""
        at = [place for place, text in enumerate(self.texts) if text.finished]
        rows = torch.tensor(at, dtype=torch.long, device=self.rows.lengths.device)
        self.rows.clear(rows)
        self.memory.clear(rows)

    def commit(self) -> None:
        """To be called when rows have been put or let go."""
        self.memory.set_lengths([text.remembered for text in self.texts])
        self._inputs = self._step_inputs()

    def _step_inputs(self) -> Inputs | None:
        return stack_inputs([step_inputs(text.request.inputs) for text in self.texts])

    def _draw(self, logits: Float[Tensor, "b v"]) -> None:
        self._drawn.append(self.rows.draw(logits, self.choices))
