"""Events of a job, in the order in which a client receives them."""

from dataclasses import dataclass
from typing import Literal

from lightning_xt.inference.text_generator import Completion

Alternatives = tuple[tuple[int, float], ...]
"""Most likely tokens of a place: id and log-probability in nats, most likely first."""


@dataclass(frozen=True)
class TokenEvent:
    """One generated token.

    Args:
        sequence: number of the sequence of its job.
        token: id; the end token and the tokens of a stop string included.
        log_prob: log-probability in nats under the model, before temperature and filters.
        text: text that has become certain. Empty = the token ends in the middle of a character, is the end token, or
            may begin a stop string.
        alternatives: most likely tokens of this place, if requested.
    """

    sequence: int
    token: int
    log_prob: float
    text: str
    alternatives: Alternatives = ()


@dataclass(frozen=True)
class SequenceEnd:
    """End of a sequence.

    Args:
        sequence: number of the sequence of its job.
        text: the rest of the text.
        reason: "stop" = the end token or a stop string; "length" = the limit of new tokens.
    """

    sequence: int
    text: str
    reason: Literal["stop", "length"]


@dataclass(frozen=True)
class Alignment:
    """Attention of a translation to its source, as the mean over layers and heads of cross-attention.

    Args:
        source_tokens: text of each source token; the end token is "</s>".
        target_tokens: text of each generated token. A character of several tokens belongs to the last of them.
        weights: for each generated token, the weight of each source token; they sum to 1.
    """

    source_tokens: list[str]
    target_tokens: list[str]
    weights: list[list[float]]


@dataclass(frozen=True)
class Candidates:
    """Sequences of a translation or of a method that ranks, which are certain only as a whole.

    A method that ranks sends them instead of its tokens. A sampled translation with alignments sends them after its
    sequences.

    Args:
        completions: best first, or in the order of seeds.
        alignments: one for each completion. None = not requested.
    """

    completions: list[Completion]
    alignments: list[Alignment] | None = None


@dataclass(frozen=True)
class Scores:
    """Log-probabilities of a prompt's tokens.

    Args:
        tokens: ids of the prompt, its start token included.
        log_probs: log-probability of each token in nats. None = the first token, which nothing predicts.
        alternatives: most likely tokens of each place, if requested; none for the first.
    """

    tokens: list[int]
    log_probs: list[float | None]
    alternatives: list[Alternatives]


@dataclass(frozen=True)
class JobEnd:
    """Last event of a job that went well.

    Args:
        prompt_tokens: tokens of the prompt or the source.
        generated_tokens: tokens of all its sequences.
    """

    prompt_tokens: int
    generated_tokens: int


@dataclass(frozen=True)
class ErrorEvent:
    """Last event of a job that failed."""

    error: Exception


Event = TokenEvent | SequenceEnd | Candidates | Scores | JobEnd | ErrorEvent


class QueueFullError(RuntimeError):
    """Refusal of a job because too many wait already."""


class EngineClosedError(RuntimeError):
    """Refusal or end of a job because the engine ends."""


class EngineFailedError(EngineClosedError):
    """Refusal or end of a job because the engine's thread has ended by an error."""


class LengthError(ValueError):
    """Refusal of a prompt or a source that is too long.

    Args:
        message: one sentence.
        field: name of the text that is too long.
    """

    def __init__(self, message: str, field: Literal["prompt", "source"] = "prompt") -> None:
        super().__init__(message)
        self.field = field


class StepError(RuntimeError):
    """Failure of a step; the message is one sentence for the client."""
