"""The texts of a batch while they are written."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_xt.generation.filters.temperature import Temperature
from lightning_xt.generation.history import History
from lightning_xt.generation.noise import draw, make_seeds
from lightning_xt.generation.requests import Request, SamplingParams

T = TypeVar("T")


@dataclass(eq=False)
class RowState:
    """What was read and drawn in each row, on the device.

    Args:
        tokens: ids, prompt first; later slots are free.
        prompts: tokens of each row's prompt.
        lengths: tokens of each row so far.
        newest: the last of them.
        seeds: where its random numbers start.
    """

    tokens: Int[Tensor, "b m"]
    prompts: Int[Tensor, " b"]
    lengths: Int[Tensor, " b"]
    newest: Int[Tensor, " b"]
    seeds: Int[Tensor, " b"]

    @classmethod
    def of(cls, requests: Sequence[Request], size: int) -> "RowState":
        """The prompts of requests, in rows of so many slots."""
        device = requests[0].prompt.device
        lengths = torch.tensor([len(request.prompt) for request in requests], device=device)
        tokens = torch.zeros(len(requests), size, dtype=torch.long, device=device)
        for row, request in zip(tokens, requests, strict=True):
            row[: len(request.prompt)] = request.prompt
        newest = tokens.gather(1, lengths[:, None] - 1)[:, 0]
        return cls(tokens, lengths, lengths, newest, make_seeds([request.seed for request in requests], device))

    def draw(
        self, logits: Float[Tensor, "b v"], choices: SamplingParams
    ) -> tuple[Int[Tensor, " b"], Float[Tensor, " b"]]:
        """Draws a token for each row, and gives it with its log-probability before temperature and filters."""
        logits = upcast(logits)
        changed = filter_logits(logits, self.history(choices.end), choices)
        token = draw(changed, choices.temperature, self.seeds, self.lengths - self.prompts)
        log_prob = logits.gather(1, token[:, None])[:, 0] - logits.logsumexp(dim=-1)
        self.tokens.scatter_(1, self.lengths[:, None], token[:, None])
        self.lengths, self.newest = self.lengths + 1, token
        return token, log_prob

    def history(self, end: int | None) -> History:
        """What filters may look at."""
        return History(self.tokens, self.prompts, self.lengths, end)

    def place(self, at: Int[Tensor, " k"], other: "RowState") -> None:
        """Puts other rows in the place of some."""
        for name, ours in vars(self).items():
            setattr(self, name, ours.index_copy(0, at, getattr(other, name)))

    def select(self, rows: Int[Tensor, " k"]) -> None:
        """Keeps, repeats or reorders rows."""
        for name, ours in vars(self).items():
            setattr(self, name, ours[rows])

    def clear(self, rows: Int[Tensor, " k"]) -> None:
        """Forgets what some rows hold, which are of no interest any more but stay for now."""
        # Not the lengths alone: nothing may have drawn less than nothing.
        self.prompts, self.lengths = (t.index_fill(0, rows, 0) for t in (self.prompts, self.lengths))


def upcast(values: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
    """The same in float32 or finer."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def plan_compaction(finished: Sequence[bool]) -> tuple[list[tuple[int, int]], int]:
    """How finished rows are let go: which go into the places of which, (from, to), and how many stay."""
    alive = len(finished) - sum(finished)
    holes = [place for place in range(alive) if finished[place]]
    last = [place for place in range(alive, len(finished)) if not finished[place]]
    return list(zip(last, holes, strict=True)), alive


def moved(values: Sequence[T], moves: Sequence[tuple[int, int]], rows: int) -> list[T]:
    """The first values after others have been written over some of them."""
    values = list(values)
    for source, target in moves:
        values[target] = values[source]
    return values[:rows]


def filter_logits(logits: Float[Tensor, "b v"], history: History, choices: SamplingParams) -> Float[Tensor, "b v"]:
    """Logits after the temperature and then the filters."""
    first = [] if choices.temperature in (0, 1) else [Temperature(choices.temperature)]
    for change in (*first, *choices.filters):
        logits = change(logits, history)
    return logits
