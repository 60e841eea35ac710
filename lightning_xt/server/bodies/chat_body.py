"""Body of a request to `/v1/chat/completions`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lightning_xt.server.bodies.request_fields import (
    FIRST,
    LONGEST_NAME,
    MOST_ALTERNATIVES,
    MOST_NEW_TOKENS,
    WHOLE,
    Name,
    RequestFields,
    SamplingFields,
    expect,
)

MOST_MESSAGES = 1024


class TextPart(RequestFields):
    """Part of a message."""

    type: Literal["text"] = Field(description="Kind of the part; models of this server read text only.")
    text: str = Field(description="The text.")


class Message(RequestFields):
    """Message of a conversation."""

    role: Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)] = Field(
        description="A role of the chat template, such as system, user or assistant."
    )
    content: Annotated[
        str | Annotated[list[TextPart], FIRST, Field(max_length=MOST_MESSAGES)],
        expect("a text or a list of text parts"),
    ] = Field(description="A text, or a list of parts of text.")
    name: Name | None = Field(None, description="Ignored.")

    @property
    def text(self) -> str:
        """The content as one text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatBody(SamplingFields):
    """A conversation to continue."""

    messages: Annotated[list[Message], FIRST, Field(min_length=1, max_length=MOST_MESSAGES)] = Field(
        description="The conversation so far. A last message of the assistant is continued."
    )
    max_completion_tokens: Annotated[int, Field(ge=1, le=MOST_NEW_TOKENS), WHOLE] | None = Field(
        None, description="The newer name of max_tokens."
    )
    logprobs: bool | None = Field(None, description="Whether to report the log-probability of each token.")
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES), WHOLE] | None = Field(
        None, description="Number of most likely tokens to report with each token; needs logprobs."
    )

    @property
    def limit(self) -> int | None:
        """Most tokens to generate, by either name."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def alternatives(self) -> int | None:
        """Number of most likely tokens to report; None = no log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @model_validator(mode="after")
    def _check_counts(self) -> Self:
        if self.max_tokens == 0:
            raise ValueError("max_tokens is 0, but an answer needs at least one token; raise it")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens are two names of one limit; give one of them")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs; set logprobs to true, or omit it")
        return self
