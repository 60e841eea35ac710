"""Body of a request to `/v1/translations`."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from lightning_xt.server.bodies.request_fields import (
    FIRST,
    MOST_CHOICES,
    MOST_NEW_TOKENS,
    WHOLE,
    GenerationFields,
    Number,
    expect,
)

MOST_BEAMS = 32


class TranslationBody(GenerationFields):
    """Sources to translate."""

    source: Annotated[
        str | Annotated[list[str], FIRST, Field(min_length=1, max_length=MOST_CHOICES)],
        expect("a text or a list of texts"),
    ] = Field(description="A text, or a list of texts.")
    beams: Annotated[int, Field(ge=1, le=MOST_BEAMS), WHOLE] | None = Field(
        None, description="Running hypotheses of beam search. Null = n_best; 1 = no beam search."
    )
    n_best: Annotated[int, Field(ge=1, le=MOST_BEAMS), WHOLE] | None = Field(
        None, description="Translations of each source, best first; at most beams. Null = 1."
    )
    length_penalty: Annotated[Number, Field(ge=0, le=3)] | None = Field(
        None, description="Power of the length by which beam search divides log-probabilities. Null = 1."
    )
    temperature: Annotated[Number, Field(ge=0, le=100)] | None = Field(
        None, description="Divides the logits; 0 always takes the most likely token. Null = 0."
    )
    max_tokens: Annotated[int, Field(ge=1, le=MOST_NEW_TOKENS), WHOLE] | None = Field(
        None, description="Most tokens to generate. Null = twice the source's tokens plus 32."
    )
    alignment: bool | None = Field(None, description="Whether to report the attention of each token to the source.")

    @property
    def sources(self) -> list[str]:
        """The sources as a list."""
        return [self.source] if isinstance(self.source, str) else self.source

    @property
    def num_beams(self) -> int:
        """Number of beams."""
        return self.beams or self.n_best or 1

    @model_validator(mode="after")
    def _check_counts(self) -> Self:
        if (self.n_best or 1) > self.num_beams:
            raise ValueError(
                f"n_best is {self.n_best}, but {self.num_beams} beams give at most {self.num_beams}; lower it"
            )
        return self
