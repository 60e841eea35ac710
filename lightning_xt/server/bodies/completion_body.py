"""Body of a request to `/v1/completions`."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from lightning_xt.server.bodies.request_fields import (
    FIRST,
    MOST_ALTERNATIVES,
    MOST_CHOICES,
    MOST_NEW_TOKENS,
    WHOLE,
    SamplingFields,
    expect,
)

Ids = Annotated[list[Annotated[int, Field(ge=0), WHOLE]], FIRST, Field(max_length=MOST_NEW_TOKENS)]


class CompletionBody(SamplingFields):
    """Prompts to complete."""

    prompt: Annotated[
        str
        | Annotated[list[str], FIRST, Field(min_length=1, max_length=MOST_CHOICES)]
        | Annotated[Ids, Field(min_length=1)]
        | Annotated[list[Annotated[Ids, Field(min_length=1)]], FIRST, Field(min_length=1, max_length=MOST_CHOICES)],
        expect("a text, a list of texts, a list of ids, or a list of such lists"),
    ] = Field(description="A text, a list of texts, a list of ids, or a list of such lists.")
    logprobs: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES), WHOLE] | None = Field(
        None, description="Number of most likely tokens to report with each token. Null = no log-probabilities."
    )
    echo: bool | None = Field(
        None, description="Whether a completion begins with its prompt; with logprobs, of its tokens too."
    )
    best_of: Annotated[int, Field(ge=1, le=MOST_CHOICES), WHOLE] | None = Field(
        None, description="Must equal n: every completion is returned. Null = n."
    )

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts as a list."""
        prompt = self.prompt
        if isinstance(prompt, str):
            return [prompt]
        if isinstance(prompt[0], int):
            return [[each for each in prompt if isinstance(each, int)]]
        return [each for each in prompt if not isinstance(each, int)]

    @model_validator(mode="after")
    def _check_counts(self) -> Self:
        n = self.n or 1
        if self.best_of not in (None, n):
            raise ValueError(f"best_of is {self.best_of}, but it must equal n, which is {n}; omit it")
        if len(self.prompts) * n > MOST_CHOICES:
            raise ValueError(
                f"{len(self.prompts)} prompts with n {n} make {len(self.prompts) * n} completions, but a request may "
                f"have {MOST_CHOICES}; send several requests"
            )
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("max_tokens is 0, which is for echo; set echo to true, or raise it")
        return self
