"""Inputs and outputs of decoding: requests, sampling parameters, generated tokens, results."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jaxtyping import Int
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.filters.base import Filter
from lightning_xt.generation.stop_strings import TailStop


@dataclass(frozen=True, eq=False, kw_only=True)
class Request:
    """One prompt to continue.

    Args:
        prompt: ids, at least one.
        max_new_tokens: most tokens to generate.
        seed: start of its random numbers. Its tokens depend on no other request of the call.
        inputs: model inputs besides tokens, for one row.
        source: source ids that the context of `inputs` encodes, from the first; padding may follow. None = none.
        after: last id of the text that the completion continues. None = the completion begins a text.
    """

    prompt: Int[Tensor, " n"]
    max_new_tokens: int
    seed: int = 0
    inputs: Inputs | None = None
    source: Int[Tensor, " m"] | None = None
    after: int | None = None

    @property
    def num_soft_tokens(self) -> int:
        """Number of soft tokens before the prompt."""
        return 0 if self.inputs is None else self.inputs.num_soft_tokens

    @property
    def prompt_length(self) -> int:
        """Number of tokens of the prompt, soft ones included."""
        return self.num_soft_tokens + len(self.prompt)

    @property
    def total_length(self) -> int:
        """Most tokens of the prompt and its completion, soft ones included."""
        return self.prompt_length + self.max_new_tokens


@dataclass(frozen=True, eq=False, kw_only=True)
class SamplingParams:
    """Sampling parameters, which all requests of a call share.

    Args:
        temperature: divides the logits before the filters; 0 always takes the most likely token.
        filters: changes of the logits, in order.
        end: end token of a sequence, itself included; only generated tokens are compared. None = there is none.
        control: further ids that stand for no text, such as pad and start; filters about repetition exempt them.
        stop: called with the number of a request and each of its generated tokens, in order; True ends the sequence.
            None = only `end` and `max_new_tokens` end it. Methods that rank sequences ignore it.
        tail_stop: ends hypotheses of methods that rank sequences. A search calls it at each step. None = only `end` and
            `max_new_tokens` end them.
        batch: most rows decoded at once.
        window: tokens that each layer can attend back to, for sequences longer than the trained length. None = the
            model's own.
        alternatives: number of most likely tokens that Sample reports with each token.
    """

    temperature: int | float = 1.0
    filters: Sequence[Filter] = ()
    end: int | None = None
    control: Sequence[int] = ()
    stop: Callable[[int, int], bool] | None = None
    tail_stop: TailStop | None = None
    batch: int = 64
    window: int | None = None
    alternatives: int = 0

    @cached_property
    def distribution(self) -> tuple[Any, ...]:
        """Options that decide the distribution of the next token, filters by their keys."""
        return self.temperature, tuple(each.key for each in self.filters), self.end, tuple(self.control)

    def ends(self, request: int, token: int) -> bool:
        """Return True if the next token of a request ends its sequence: the end token, or one that `stop` ends at."""
        stopped = self.stop is not None and self.stop(request, token)
        return stopped or token == self.end


@dataclass(frozen=True)
class GeneratedToken:
    """One token of a sequence, given out once it is certain.

    Args:
        request: number of the request, from 0.
        token: id.
        log_prob: log-probability in nats under the model, before temperature and filters.
        last: whether it is the last of its sequence.
        sequence: number of the sequence of its request, best first.
        score: score of the whole sequence, with its last token. None = the sum of its log-probabilities.
        alternatives: ids of the most likely tokens and their log-probabilities in nats, most likely first.
    """

    request: int
    token: int
    log_prob: float
    last: bool
    sequence: int = 0
    score: float | None = None
    alternatives: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        """Refuse a token that was sampled from scores that are not finite.

        Raises:
            ValueError: the log-probability has a mark of `row_state.mark_lost`.
        """
        if math.isnan(self.log_prob):
            raise ValueError(
                "the model's scores of the next token are not finite, so there is no token to choose; its weights may "
                "hold NaN or infinity (use another checkpoint), or the guidance or the contrast is too large (lower it)"
            )
        if self.log_prob == math.inf:
            raise ValueError(
                "the filters leave no token with a finite score, but each filter must keep at least one; change your "
                "own filter, or omit it"
            )


@dataclass(frozen=True)
class Result:
    """One sequence generated for a request.

    Args:
        tokens: ids without the prompt; a reached end token is included.
        log_probs: log-probability of each token in nats, before temperature and filters.
        score: their sum, or the number by which the method ranks sequences.
    """

    tokens: list[int]
    log_probs: list[float]
    score: float
