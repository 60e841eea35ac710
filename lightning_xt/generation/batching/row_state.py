"""Tokens of the rows of a batch while they are decoded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_xt.generation.filters.temperature import Temperature
from lightning_xt.generation.history import History
from lightning_xt.generation.noise import make_seeds, sample_tokens
from lightning_xt.generation.requests import Request, SamplingParams

T = TypeVar("T")


class RowGroup(NamedTuple):
    """Rows with the same parameters of sampling."""

    params: SamplingParams
    rows: Int[Tensor, " k"]


def group_rows(params: Sequence[SamplingParams], device: torch.device) -> list[RowGroup]:
    """Group rows by what decides the distribution of their next tokens."""
    found: dict[Any, list[int]] = {}
    for row, each in enumerate(params):
        found.setdefault(each.distribution, []).append(row)
    return [RowGroup(params[rows[0]], torch.tensor(rows, device=device)) for rows in found.values()]


@dataclass(frozen=True, eq=False)
class SampledTokens:
    """One sampled token of each row.

    Args:
        tokens: ids.
        log_probs: log-probabilities before temperature and filters, marked as by `mark_lost`.
        alternatives: log-probabilities of the most likely tokens, and their ids. None = they are not reported.
    """

    tokens: Int[Tensor, " b"]
    log_probs: Float[Tensor, " b"]
    alternatives: tuple[Float[Tensor, "b k"], Int[Tensor, "b k"]] | None


@dataclass(eq=False)
class RowState:
    """Tokens of each row, prompt and generated, on the device.

    Args:
        tokens: ids, prompt first; later slots are free.
        prompts: tokens of each row's prompt.
        lengths: tokens of each row so far.
        newest: last token of each row.
        seeds: start of each row's random numbers.
    """

    tokens: Int[Tensor, "b t"]
    prompts: Int[Tensor, " b"]
    lengths: Int[Tensor, " b"]
    newest: Int[Tensor, " b"]
    seeds: Int[Tensor, " b"]

    @classmethod
    def from_requests(cls, requests: Sequence[Request], size: int) -> "RowState":
        """Make rows of `size` slots that hold the prompts of requests."""
        device = requests[0].prompt.device
        lengths = torch.tensor([len(request.prompt) for request in requests], device=device)
        tokens = torch.zeros(len(requests), size, dtype=torch.long, device=device)
        for row, request in zip(tokens, requests, strict=True):
            row[: len(request.prompt)] = request.prompt
        newest = tokens.gather(1, lengths[:, None] - 1)[:, 0]
        return cls(tokens, lengths, lengths, newest, make_seeds([request.seed for request in requests], device))

    def sample(self, logits: Float[Tensor, "b v"], groups: Sequence[RowGroup], likely: int = 0) -> SampledTokens:
        """Append a sampled token to each row; report it with its log-probability and the most likely tokens.

        Args:
            logits: scores of the next token.
            groups: rows that are sampled by the same parameters; together all rows.
            likely: number of most likely tokens to report.
        """
        logits = upcast(logits)
        if len(groups) == 1:
            token, log_prob = self._choose(logits, groups[0].params)
        else:
            token, log_prob = torch.empty_like(self.newest), torch.empty_like(logits[:, 0])
            for group in groups:
                token[group.rows], log_prob[group.rows] = self.pick(group.rows)._choose(
                    logits[group.rows], group.params
                )
        self.tokens.scatter_(1, self.lengths[:, None], token[:, None])
        self.lengths, self.newest = self.lengths + 1, token
        alternatives = None
        if likely > 0:
            values, ids = logits.topk(min(likely, logits.shape[-1]), dim=-1)
            alternatives = values - logits.logsumexp(dim=-1, keepdim=True), ids
        return SampledTokens(token, log_prob, alternatives)

    def _choose(
        self, logits: Float[Tensor, "b v"], params: SamplingParams
    ) -> tuple[Int[Tensor, " b"], Float[Tensor, " b"]]:
        """Sample a token of each row; return it with its log-probability before temperature and filters."""
        filtered = filter_logits(logits, self.make_history(params), params)
        token = sample_tokens(filtered, params.temperature, self.seeds, self.lengths - self.prompts)
        return token, compute_log_probs(logits, filtered, token)

    def pick(self, rows: Int[Tensor, " k"]) -> "RowState":
        """Copy some rows."""
        return RowState(**{name: ours[rows] for name, ours in vars(self).items()})

    def make_history(self, params: SamplingParams) -> History:
        """Return the tokens so far, for filters."""
        return History(self.tokens, self.prompts, self.lengths, params.end, params.control)

    def overwrite(self, at: Int[Tensor, " k"], other: "RowState") -> None:
        """Overwrite some rows by those of another state."""
        for name, ours in vars(self).items():
            setattr(self, name, ours.index_copy(0, at, getattr(other, name)))

    def widen(self, rows: int) -> None:
        """Add rows of zeros up to a number of rows."""
        for name, ours in vars(self).items():
            setattr(self, name, torch.cat((ours, ours.new_zeros(rows - len(ours), *ours.shape[1:]))))

    def select(self, rows: Int[Tensor, " k"]) -> None:
        """Keep, repeat or reorder rows."""
        for name, ours in vars(self).items():
            setattr(self, name, ours[rows])

    def clear(self, rows: Int[Tensor, " k"]) -> None:
        """Clear rows that have finished but are still in the batch."""
        # Prompts too: a row must not have generated fewer than 0 tokens.
        self.prompts, self.lengths = (t.index_fill(0, rows, 0) for t in (self.prompts, self.lengths))


def compute_log_probs(
    logits: Float[Tensor, "*b v"], filtered: Float[Tensor, "*b v"], tokens: Int[Tensor, "*b"]
) -> Float[Tensor, "*b"]:
    """Return the log-probability of each token before temperature and filters, marked as by `mark_lost`."""
    at = tokens[..., None]
    own = logits.gather(-1, at)[..., 0]
    return mark_lost(own, logits.logsumexp(dim=-1), own if filtered is logits else filtered.gather(-1, at)[..., 0])


def mark_lost(
    logits: Float[Tensor, "*b"], sums: Float[Tensor, "*b"], filtered: Float[Tensor, "*b"]
) -> Float[Tensor, "*b"]:
    """Return log-probabilities, marked for `GeneratedToken`, which refuses them once the host reads them.

    Args:
        logits: of the tokens.
        sums: logsumexp of all logits; if it is not finite, the mark is NaN.
        filtered: logits of the tokens after temperature and filters; if they are not finite, the mark is infinity.
    """
    # The difference is 0 or NaN.
    return (logits - sums).where(filtered.isfinite(), float("inf")) + (sums - sums)


def upcast(values: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
    """Convert to float32 unless the precision is at least that."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def pad_rows(rows: Sequence[Sequence[int]], device: torch.device, pad: int = 0) -> Int[Tensor, "b n"]:
    """Stack the tokens of rows, padded on the right."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows], device=device)


def plan_compaction(finished: Sequence[bool]) -> tuple[list[tuple[int, int]], int]:
    """Plan how finished rows are dropped: return the moves of the last rows, (from, to), and the number that stays."""
    alive = len(finished) - sum(finished)
    holes = [place for place in range(alive) if finished[place]]
    last = [place for place in range(alive, len(finished)) if not finished[place]]
    return list(zip(last, holes, strict=True)), alive


def apply_moves(values: Sequence[T], moves: Sequence[tuple[int, int]], rows: int) -> list[T]:
    """Apply the moves of a compaction to a list; return its first `rows` values."""
    values = list(values)
    for source, target in moves:
        values[target] = values[source]
    return values[:rows]


def filter_logits(logits: Float[Tensor, "b v"], history: History, params: SamplingParams) -> Float[Tensor, "b v"]:
    """Apply the temperature and then the filters."""
    first = [] if params.temperature in (0, 1) else [Temperature(params.temperature)]
    for change in (*first, *params.filters):
        logits = change(logits, history)
    return logits
