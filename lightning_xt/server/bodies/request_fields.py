"""Base of the bodies of requests: strict values, bounded lists, and messages about unknown fields."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidationError,
    WrapValidator,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError

from lightning_xt.system.messages import explain_unknown, find_close_matches

MOST_CHOICES = 128
"""Most completions of a request, and most prompts or sources."""
MOST_STOPS = 16
MOST_BIASES = 1024
MOST_ALTERNATIVES = 20
LONGEST_NAME = 200
MOST_NEW_TOKENS = 1_048_576
"""Bound of the schema; the server's own limits are lower."""
MAX_SEED = 2**63 - 1
REFUSED = {
    "suffix": "models of this server continue a text at its end only",
    "tools": "models of this server call no tools",
    "tool_choice": "models of this server call no tools",
    "functions": "models of this server call no functions",
    "function_call": "models of this server call no functions",
    "response_format": "completions are plain text",
}
"""Fields of OpenAI that this API does not have, with the reason."""
SHAPES = ("string_type", "list_type", "int_type", "float_type", "dict_type", "bool_type", "model_type")
"""Errors of pydantic that mean: another kind of value is expected."""


class RequestFields(BaseModel):
    """Base class of a JSON object in a request: unknown fields and values of another type are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)
    noun: ClassVar[str] = "field"

    @model_validator(mode="before")
    @classmethod
    def _name_unknown_fields(cls, values: Any) -> Any:
        """Refuse an unknown field by a sentence with close matches."""
        for name in values if isinstance(values, dict) else ():
            if name in cls.model_fields:
                continue
            reason = REFUSED.get(name)
            if reason is None or find_close_matches(name, cls.model_fields)[:1] == [name]:
                message = explain_unknown(cls.noun, str(name)[:LONGEST_NAME], cls.model_fields)
            else:
                message = f"{name} is not supported: {reason}; omit it"
            details = {"sentence": message, "field": str(name)[:LONGEST_NAME]}
            raise PydanticCustomError("unknown_field", "{sentence}", details)
        return values


def take_whole(value: Any) -> Any:
    """Return a number such as 5.0 as an integer, which it is in JSON."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def expect(words: str) -> WrapValidator:
    """Explain with these words what a field with several kinds of values takes."""

    def check(value: Any, validate: Callable[[Any], Any]) -> Any:
        try:
            return validate(value)
        except ValidationError as error:
            errors = error.errors(include_url=False, include_input=False, include_context=False)
            other = [each for each in errors if each["type"] not in SHAPES]
            message = other[0]["msg"].replace(" after validation", "") if other else f"it should be {words}"
            message = message.replace("Input should", "each item should")
            raise PydanticCustomError("shape", "{sentence}", {"sentence": message}) from error

    return WrapValidator(check)


def check_biases(value: Any) -> Any:
    """Refuse too many biases before each of them is checked."""
    if isinstance(value, dict) and len(value) > MOST_BIASES:
        raise ValueError(f"it has {len(value)} ids, but at most {MOST_BIASES} may be given")
    return value


@dataclass(frozen=True)
class EndAtFirstError:
    """End of the checks of a list at its first invalid item: a large list has as many errors as items.

    Pydantic's own `FailFast` cannot be part of a union, which needs hashable parts.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return cast(CoreSchema, {**handler(source), "fail_fast": True})


FIRST = EndAtFirstError()
"""Stands directly after the list."""
WHOLE = BeforeValidator(take_whole)
"""Lets an integer be written as 5.0; its range stands before it, or the schema would not show it."""
StopString = Annotated[str, Field(min_length=1, max_length=1024)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Name = Annotated[str, Field(max_length=LONGEST_NAME)]


class StreamOptions(RequestFields):
    """Options of a streamed answer."""

    include_usage: bool = Field(False, description="Whether a last chunk has the numbers of tokens.")


class GenerationFields(RequestFields):
    """Fields that all requests for generated text share."""

    model: Name | None = Field(None, description="Name of the model. Null = the only one that is served.")
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = Field(
        None, description="Sample only from the most likely tokens with this total probability. Null = any."
    )
    top_k: Annotated[int, Field(ge=0, le=MOST_NEW_TOKENS), WHOLE] | None = Field(
        None, description="Sample only from this many most likely tokens. Null or 0 = any."
    )
    min_p: Annotated[Number, Field(ge=0, le=1)] | None = Field(
        None, description="Sample only from tokens with at least this fraction of the highest probability. Null = any."
    )
    seed: Annotated[int, Field(ge=-MAX_SEED, le=MAX_SEED), WHOLE] | None = Field(
        None, description="Start of the random numbers. Null = a random one."
    )
    stream: bool | None = Field(None, description="Whether to send text while it is generated, as server-sent events.")


class SamplingFields(GenerationFields):
    """Fields that completions and chat completions share."""

    temperature: Annotated[Number, Field(ge=0, le=100)] | None = Field(
        None, description="Divides the logits; 0 always takes the most likely token. Null = 1."
    )
    max_tokens: Annotated[int, Field(ge=0, le=MOST_NEW_TOKENS), WHOLE] | None = Field(
        None, description="Most tokens to generate. Null = 256, or fewer if the model's positions end before."
    )
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES), WHOLE] | None = Field(
        None, description="Completions of each prompt; number i samples with seed + i. Null = 1."
    )
    stop: (
        Annotated[
            StopString | Annotated[list[StopString], FIRST, Field(max_length=MOST_STOPS)],
            expect("a text or a list of texts"),
        ]
        | None
    ) = Field(None, description="A text, or several, before which a completion ends.")
    presence_penalty: Annotated[Number, Field(ge=-100, le=100)] | None = Field(
        None, description="Number to subtract from the logits of generated tokens. Null = 0."
    )
    frequency_penalty: Annotated[Number, Field(ge=-100, le=100)] | None = Field(
        None, description="Number to subtract from a token's logit for each time that it was generated. Null = 0."
    )
    repetition_penalty: Annotated[Number, Field(ge=0.001, le=1000)] | None = Field(
        None, description="Divides the positive logits of earlier tokens, the prompt's included. Null = 1."
    )
    logit_bias: (
        Annotated[
            dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], Annotated[Number, Field(ge=-100, le=100)]],
            Field(max_length=MOST_BIASES),
            BeforeValidator(check_biases),
        ]
        | None
    ) = Field(None, description="Number to add to the logit of each id.")
    window: Annotated[int, Field(ge=1, le=MOST_NEW_TOKENS), WHOLE] | None = Field(
        None, description="Tokens that each layer can attend back to. Null = the model's own."
    )
    stream_options: StreamOptions | None = Field(None, description="Options of a streamed answer.")
    user: Name | None = Field(None, description="Ignored.")

    @model_validator(mode="after")
    def _check_stream_options(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is for streamed answers; set stream to true, or omit it")
        return self

    @property
    def stops(self) -> list[str]:
        """The stop strings as a list."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())

    @property
    def reports_usage(self) -> bool:
        """True if the last chunk of a stream has the numbers of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage
