"""What is asked of decoding, and what it gives."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.filters.base import Filter


@dataclass(frozen=True, eq=False, kw_only=True)
class Request:
    """One prompt to go on with.

    Args:
        prompt: its ids, at least one.
        max_new_tokens: most tokens to draw.
        seed: where its random numbers start; what it draws depends on nothing else that is asked for beside it.
        inputs: what the model needs beside tokens, one row of it.
    """

    prompt: Int[Tensor, " n"]
    max_new_tokens: int
    seed: int = 0
    inputs: Inputs | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class SamplingParams:
    """How tokens are chosen, for all requests of a call.

    Args:
        temperature: divides the logits before the filters; 0 always takes the likeliest token.
        filters: change the logits, in order.
        end: token with which a text ends, itself included; it is looked for only in what is drawn. None = none.
        stop: called with the number of a request and each token drawn for it, in order; True ends its text there.
            None = nothing but `end` and `max_new_tokens`.
        batch: most rows decoded at once.
        window: tokens that each layer may look back, for texts longer than those a model was trained on. None = as the
            model has it.
    """

    temperature: int | float = 1.0
    filters: Sequence[Filter] = ()
    end: int | None = None
    stop: Callable[[int, int], bool] | None = None
    batch: int = 64
    window: int | None = None


@dataclass(frozen=True)
class GeneratedToken:
    """One token of an answer, as soon as it is certain.

    Args:
        request: number of the request, from 0.
        token: its id.
        log_prob: its log-probability in nats under the model, before temperature and filters.
        last: whether it is the last of its sequence.
        sequence: number of the sequence where a request has several, the best first.
        score: of the whole sequence, with its last token. None = the sum of its log-probabilities.
    """

    request: int
    token: int
    log_prob: float
    last: bool
    sequence: int = 0
    score: float | None = None


@dataclass(frozen=True)
class Result:
    """One sequence that was drawn for a request.

    Args:
        tokens: ids, without the prompt; the end token included where it ended with it.
        log_probs: of each token, in nats, before temperature and filters.
        score: their sum, or what the method ranks sequences by.
    """

    tokens: list[int]
    log_probs: list[float]
    score: float
