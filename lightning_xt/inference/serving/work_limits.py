"""Limits of the decoding of one model."""

from dataclasses import dataclass

from lightning_xt.generation.requests import Request
from lightning_xt.inference.serving.events import LengthError
from lightning_xt.inference.text_completer import TextCompleter
from lightning_xt.inference.translation import Translator

UNKNOWN_LENGTH = 4096
"""Tokens of a row of a model of any length whose training length is unknown."""


@dataclass(frozen=True)
class WorkLimits:
    """Limits of the decoding of one model.

    Args:
        rows: most sequences decoded at once; of methods that are not sampling, as many again.
        tokens: most tokens of a sequence, prompt and completion.
        prefill_tokens: most tokens of prompts between two decode steps.
        max_waiting: most sequences that wait for a row.
    """

    rows: int
    tokens: int
    prefill_tokens: int
    max_waiting: int

    @property
    def sequences(self) -> int:
        """Most sequences at once, decoded and waiting."""
        return self.rows + self.max_waiting

    def check_prompt(self, tokens: int) -> None:
        """Raise a LengthError for a prompt that leaves no room for a completion."""
        if tokens >= self.tokens:
            raise LengthError(
                f"the prompt has {tokens} tokens, but prompt and completion may have {self.tokens} together here; "
                f"shorten the prompt to at most {self.tokens - 1} tokens"
            )

    def check_request(self, request: Request) -> None:
        """Raise a LengthError for a request that no row can hold."""
        n, most = request.prompt_length, self.tokens
        self.check_prompt(n)
        if request.total_length > most:
            raise LengthError(
                f"a prompt of {n} tokens and {request.max_new_tokens} more make {request.total_length}, but prompt and "
                f"completion may have {most} together here; ask for at most {most - n} tokens"
            )

    def check_sequences(self, num_sequences: int, rows_per_sequence: int) -> None:
        """Raise a ValueError for a job that asks for more sequences or beams than fit."""
        if rows_per_sequence > self.rows:
            raise ValueError(
                f"the method decodes {rows_per_sequence} rows at once for one request, but {self.rows} fit here; use "
                "fewer beams"
            )
        if num_sequences > self.sequences:
            raise ValueError(f"{num_sequences} sequences are requested at once; request at most {self.sequences}")


def choose_tokens(generator: TextCompleter | Translator, requested: int | None) -> int:
    """Choose the most tokens of a sequence: the requested ones, else four times the trained length, else 4096.

    The model's positions limit them; without a request they are used whole.
    """
    if isinstance(generator, TextCompleter):
        most, trained = generator.model.max_length, generator.trained_length
    else:
        most, trained = generator.network.decoder.max_length, generator.max_source_ids
    if most is not None:
        return most if requested is None else min(most, requested)
    if requested is not None:
        return requested
    return UNKNOWN_LENGTH if trained is None else 4 * trained
