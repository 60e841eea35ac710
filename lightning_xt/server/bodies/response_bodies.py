"""Bodies of answers, for the description of the API. Answers themselves are made as plain values."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class ResponseBody(BaseModel):
    """Base class of a JSON object in an answer."""

    model_config = ConfigDict(extra="forbid")


class ErrorFields(ResponseBody):
    """Reason for a refusal."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(ResponseBody):
    """Refusal of a request."""

    error: ErrorFields


class Usage(ResponseBody):
    """Numbers of tokens of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionLogProbs(ResponseBody):
    """Tokens of a completion, with their log-probabilities in nats."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(ResponseBody):
    """One completion."""

    index: int
    text: str
    logprobs: CompletionLogProbs | None
    finish_reason: Literal["stop", "length"] | None


class CompletionAnswer(ResponseBody):
    """Completions of prompts: those of the first prompt, then those of the second, and so on."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None


class ChatToken(ResponseBody):
    """Token of an answer to a conversation."""

    token: str
    logprob: float
    bytes: list[int]


class ChatTokenEntry(ChatToken):
    """Token of an answer with the most likely ones in its place."""

    top_logprobs: list[ChatToken]


class ChatLogProbs(ResponseBody):
    """Tokens of an answer to a conversation."""

    content: list[ChatTokenEntry]
    refusal: None


class ChatMessage(ResponseBody):
    """Answer to a conversation."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(ResponseBody):
    """One answer to a conversation."""

    index: int
    message: ChatMessage
    logprobs: ChatLogProbs | None
    finish_reason: Literal["stop", "length"]


class ChatAnswer(ResponseBody):
    """Answers to a conversation."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class AlignmentBody(ResponseBody):
    """Attention of a translation to its source: for each target token, weights of all source tokens that sum to 1."""

    source_tokens: list[str]
    target_tokens: list[str]
    weights: list[list[float]]


class CandidateBody(ResponseBody):
    """One translation of a source."""

    text: str
    score: float
    alignment: AlignmentBody | None


class TranslationItem(ResponseBody):
    """Translations of one source, best first."""

    index: int
    source: str
    candidates: list[CandidateBody]


class TranslationAnswer(ResponseBody):
    """Translations of sources."""

    object: Literal["translations"]
    model: str
    translations: list[TranslationItem]
    usage: Usage


class ModelBody(ResponseBody):
    """A served model; `defaults` has the default and the range of each field of its requests."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    kind: Literal["language_model", "encoder_decoder"]
    max_length: int | None
    vocab_size: int
    alignment: bool
    defaults: dict[str, dict[str, Any]]


class ModelList(ResponseBody):
    """All served models."""

    object: Literal["list"]
    data: list[ModelBody]


class HealthBody(ResponseBody):
    """State of a server."""

    status: Literal["ok", "stopping", "failed"]
    models: list[str]
