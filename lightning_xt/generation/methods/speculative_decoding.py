"""Speculative decoding: draft some tokens, verify them in one forward, accept those that the model samples itself.

Leviathan et al., 2022. https://arxiv.org/abs/2211.17192

No draft is rejected by chance here. A row's sample at a step is a pure function of its seed, the step and the logits
(see `noise`). So once the model has scored the draft, the token that it samples at each place is known, and a drafted
token is accepted if it is that token. The completion therefore equals that of plain decoding, token for token, greedy
or sampled, whatever the filters and the drafter are. A draft model that samples with the same numbers often proposes
accepted tokens (Daliri et al., 2024. https://arxiv.org/abs/2408.07978).
"""

from abc import abstractmethod
from collections.abc import Generator, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from lightning_xt.generation.batching.row_state import (
    RowState,
    apply_moves,
    compute_log_probs,
    pad_rows,
    plan_compaction,
    upcast,
)
from lightning_xt.generation.methods.base import Method
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.requests import GeneratedToken, Request, SamplingParams
from lightning_xt.generation.search.speculated_rows import CachedModel, Moves, TrackedRow, sample_steps


@runtime_checkable
class Drafter(Protocol):
    """Proposes the next tokens of rows."""

    def propose(self, rows: Sequence[TrackedRow], state: RowState, most: Sequence[int]) -> list[list[int]]:
        """Return a draft for each row.

        Args:
            rows: the rows.
            state: the rows on the device; tokens beyond their lengths may be overwritten.
            most: most tokens of each draft; one of them is above 0.
        """

    def keep(self, rows: Sequence[TrackedRow], moves: Moves) -> None:
        """Continue with these rows, which have grown by accepted tokens and one more."""


class SpeculativeDecoding(Method):
    """Sampling in fewer forwards, by drafts of at most `ahead` tokens."""

    def __init__(self, ahead: int) -> None:
        self.ahead = ahead
        self.proposed = 0
        """Tokens drafted in the last call."""
        self.accepted = 0
        """Drafted tokens that were accepted."""

    @abstractmethod
    def make_drafter(self, rows: Sequence[TrackedRow], params: SamplingParams) -> Drafter:
        """Make the drafter of rows whose prompts are known."""

    def __call__(
        self, model: Autoregressive, requests: Sequence[Request], params: SamplingParams
    ) -> Generator[GeneratedToken, None, None]:
        tokens = super().__call__(model, requests, params)
        self.proposed = self.accepted = 0
        return tokens

    def check(self, model: Autoregressive, requests: Sequence[Request], params: SamplingParams) -> None:
        """Raise a ValueError for a model that cannot remove rejected drafts from its cache."""
        for each in self.list_models(model):
            if each.recurrences:
                raise ValueError(
                    f"method {type(self).__name__} removes rejected drafts from a cache, but "
                    f"{' and '.join(each.recurrences)} is a running state without a past; choose a method without "
                    "drafts"
                )

    def start(self, model: Autoregressive, requests: Mapping[int, Request], params: SamplingParams) -> "_Run":
        return _Run(self, model, [TrackedRow(number, request) for number, request in requests.items()], params)


class _Run:
    """Rows that are decoded together by drafts."""

    def __init__(
        self, method: SpeculativeDecoding, model: Autoregressive, rows: list[TrackedRow], params: SamplingParams
    ) -> None:
        self.method, self.rows, self.params = method, rows, params
        self.model = CachedModel(model, rows, params.window, method.ahead + 1)
        longest = max(row.longest for row in rows)
        self.state = RowState.from_requests([row.request for row in rows], longest + method.ahead)
        self.drafter = method.make_drafter(rows, params)
        self.drafts: list[list[int]] | None = None

    @property
    def busy(self) -> bool:
        return not all(row.finished for row in self.rows)

    def advance(self) -> list[GeneratedToken]:
        """Verify a draft; return the accepted tokens and the one after them."""
        if self.drafts is None:
            self.drafts = [[] for _ in self.rows]
        else:
            self._draft()
        sampled, filtered = sample_steps(self.state, self.model.logits, self.params)
        log_probs = compute_log_probs(upcast(self.model.logits), filtered, sampled)
        tokens: list[GeneratedToken] = []
        for each in zip(self.rows, self.drafts, sampled.tolist(), log_probs.tolist(), strict=True):
            tokens += self._accept(*each)
        return tokens

    def _draft(self) -> None:
        """Drop finished rows, draft for the others, and score the drafts."""
        moves, alive = plan_compaction([row.finished for row in self.rows])
        self.rows = rows = apply_moves(self.rows, moves, alive)
        self.model.keep(rows, moves)
        self.drafter.keep(rows, moves)
        device, before = self.state.lengths.device, len(self.state.lengths)
        if len(rows) < before:
            self.state.select(torch.tensor(apply_moves(range(before), moves, len(rows)), device=device))
        self.state.lengths = torch.tensor([len(row.tokens) for row in rows], device=device)
        # A draft is scored together with the row's newest token.
        most = [min(self.method.ahead, self.model.room - 1, row.remaining - 1) for row in rows]
        self.drafts = self.drafter.propose(rows, self.state, most) if max(most) > 0 else [[] for _ in rows]
        self.method.proposed += sum(map(len, self.drafts))
        self.model.extend(self._append_drafts(self.drafts))

    def _append_drafts(self, drafts: Sequence[Sequence[int]]) -> Int[Tensor, "b n"]:
        """Write drafts beyond the rows' lengths, where filters see them; return newest tokens with drafts."""
        state = self.state
        newest = [[row.tokens[-1], *draft] for row, draft in zip(self.rows, drafts, strict=True)]
        tokens = pad_rows(newest, state.tokens.device)
        at = state.lengths[:, None] - 1 + torch.arange(tokens.shape[1], device=tokens.device)
        state.tokens.scatter_(1, at, tokens)
        return tokens

    def _accept(
        self, row: TrackedRow, draft: Sequence[int], tokens: Sequence[int], log_probs: Sequence[float]
    ) -> list[GeneratedToken]:
        """Accept sampled tokens up to the first that differs from the draft, that one included."""
        taken = []
        for place, (token, log_prob) in enumerate(zip(tokens, log_probs, strict=True)):
            row.tokens.append(token)
            row.finished = self.params.ends(row.number, token) or row.remaining == 0
            accepted = place < len(draft) and draft[place] == token
            self.method.accepted += accepted
            taken.append(GeneratedToken(row.number, token, log_prob, row.finished))
            if row.finished or not accepted:
                break
        return taken
