"""Speculative decoding: some tokens are guessed, the model reads them at once, and those that it draws itself are kept.

Leviathan et al., 2022. https://arxiv.org/abs/2211.17192

Nothing is rejected by chance here. What a row draws at a step is a pure function of its seed, the step and the scores
(see `noise`). So once the model has scored the guesses, the token that it draws after each of them is known, and a
guess is kept while it is that token. The text is therefore that of plain decoding, token for token, likeliest or
sampled, whatever the filters are and whoever guesses. A draft that draws with the same numbers often guesses right
(Daliri et al., 2024. https://arxiv.org/abs/2408.07978).
"""

from abc import abstractmethod
from collections.abc import Generator, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from lightning_xt.generation.batching.request_groups import batches
from lightning_xt.generation.batching.row_state import RowState, moved, plan_compaction, upcast
from lightning_xt.generation.eval_mode import eval_mode
from lightning_xt.generation.methods.base import Method
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.request_checks import check_requests
from lightning_xt.generation.requests import GeneratedToken, Request, SamplingParams
from lightning_xt.generation.search.speculated_rows import CachedModel, Moves, TrackedRow, draw_steps, padded


@runtime_checkable
class Drafter(Protocol):
    """Guesses what rows go on with."""

    def guess(self, texts: Sequence[TrackedRow], rows: RowState, most: Sequence[int]) -> list[list[int]]:
        """Tokens that may follow in each row.

        Args:
            texts: the rows.
            rows: the same on the device; what stands beyond their ends may be changed.
            most: guesses that each row can use, at least one of them more than none.
        """

    def keep(self, texts: Sequence[TrackedRow], moves: Moves) -> None:
        """Goes on with these rows, which have grown by guesses that were right and a token after them."""


class SpeculativeDecoding(Method):
    """Draws what the model draws, in fewer forwards.

    Args:
        ahead: most tokens guessed at once.
    """

    def __init__(self, ahead: int) -> None:
        self.ahead = ahead
        self.proposed = 0
        """Tokens that were guessed in the last call."""
        self.accepted = 0
        """Those among them that the model drew too."""

    @abstractmethod
    def guesser(self, texts: Sequence[TrackedRow], choices: SamplingParams) -> Drafter:
        """What guesses for these rows, whose prompts are known."""

    def check(self, model: Autoregressive, requests: Sequence[Request]) -> None:
        """Raises a ValueError for what cannot be guessed."""

    def __call__(
        self, model: Autoregressive, requests: Sequence[Request], choices: SamplingParams
    ) -> Generator[GeneratedToken, None, None]:
        """Tokens of all requests as they become certain, from as many rows at once as the choices allow."""
        check_requests(model, requests, choices)
        self.check(model, requests)
        self.proposed = self.accepted = 0
        return self._decode(model, requests, choices)

    def _decode(
        self, model: Autoregressive, requests: Sequence[Request], choices: SamplingParams
    ) -> Generator[GeneratedToken, None, None]:
        texts = [TrackedRow(number, request) for number, request in enumerate(requests)]
        with eval_mode(model):
            for numbers in batches(requests, choices.batch):
                yield from self._decode_together(model, [texts[number] for number in numbers], choices)

    def _decode_together(
        self, model: Autoregressive, texts: list[TrackedRow], choices: SamplingParams
    ) -> Generator[GeneratedToken, None, None]:
        # Entered anew for each forward: whoever reads the tokens does so outside inference mode.
        with torch.inference_mode():
            reader = CachedModel(model, texts, choices.window, self.ahead + 1)
            longest = max(text.longest for text in texts)
            rows = RowState.of([text.request for text in texts], longest + self.ahead)
            guesser = self.guesser(texts, choices)
        guesses: list[list[int]] = [[] for _ in texts]
        while texts:
            with torch.inference_mode():
                drawn = draw_steps(rows, reader.logits, choices)
                tokens, log_probs = drawn.tolist(), _log_probs(reader.logits, drawn).tolist()
            for each in zip(texts, guesses, tokens, log_probs, strict=True):
                yield from self._take(*each, choices)
            moves, alive = plan_compaction([text.finished for text in texts])
            texts = moved(texts, moves, alive)
            if texts:
                with torch.inference_mode():
                    for holder in (reader, guesser):
                        holder.keep(texts, moves)
                    _keep(rows, texts, moves)
                    guesses = self._guess(guesser, texts, rows, reader.room)
                    reader.read(_suppose(rows, texts, guesses))

    def _guess(self, guesser: Drafter, texts: Sequence[TrackedRow], rows: RowState, room: int) -> list[list[int]]:
        """Guesses for each row, as many as it can use and as fit beside its last token, which is read with them."""
        most = [min(self.ahead, room - 1, text.remaining - 1) for text in texts]
        guesses = guesser.guess(texts, rows, most) if max(most) > 0 else [[] for _ in texts]
        self.proposed += sum(map(len, guesses))
        return guesses

    def _take(
        self,
        text: TrackedRow,
        guess: Sequence[int],
        tokens: Sequence[int],
        log_probs: Sequence[float],
        choices: SamplingParams,
    ) -> Generator[GeneratedToken, None, None]:
        """Takes up what was drawn, up to the first token that is not the guessed one, that one included."""
        for place, (token, log_prob) in enumerate(zip(tokens, log_probs, strict=True)):
            text.tokens.append(token)
            text.finished = text.remaining == 0 or token == choices.end
            if choices.stop is not None and choices.stop(text.number, token):
                text.finished = True
            right = place < len(guess) and guess[place] == token
            self.accepted += right
            yield GeneratedToken(text.number, token, log_prob, text.finished)
            if text.finished or not right:
                return


def _keep(rows: RowState, texts: Sequence[TrackedRow], moves: Moves) -> None:
    device, before = rows.lengths.device, len(rows.lengths)
    if len(texts) < before:
        rows.select(torch.tensor(moved(range(before), moves, len(texts)), device=device))
    rows.lengths = torch.tensor([len(text.tokens) for text in texts], device=device)


def _suppose(rows: RowState, texts: Sequence[TrackedRow], guesses: Sequence[Sequence[int]]) -> Int[Tensor, "b n"]:
    """The last token of each row and its guesses, which filters are to see beyond its end."""
    tokens = padded([[text.tokens[-1], *guess] for text, guess in zip(texts, guesses, strict=True)], rows.tokens.device)
    at = rows.lengths[:, None] - 1 + torch.arange(tokens.shape[1], device=tokens.device)
    rows.tokens.scatter_(1, at, tokens)
    return tokens


def _log_probs(logits: Tensor, tokens: Tensor) -> Tensor:
    logits = upcast(logits)
    return logits.gather(-1, tokens[..., None])[..., 0] - logits.logsumexp(dim=-1)
