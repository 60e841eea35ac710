"""First tokens of a model, by which everything is compiled and loaded before a client comes."""

from threading import Event as Flag

from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.serving.events import ErrorEvent, Event, JobEnd, StepError
from lightning_xt.inference.serving.serving_engine import Engine
from lightning_xt.inference.text_completer import TextCompleter
from lightning_xt.inference.text_generator import TextGenerator
from lightning_xt.system.messages import UserError, explain_error

TOKENS = 4
SEVERAL = 4
"""Rows that are decoded at once, after one alone."""


def warm_up(engine: Engine, name: str, generator: TextGenerator, rows: int) -> None:
    """Decode a few tokens in one row, and in several; UserError if the model cannot."""
    for count in sorted({1, min(SEVERAL, rows)}):
        options = GenerationOptions(max_new_tokens=TOKENS, temperature=1.0, num_return_sequences=count)
        _run(engine, name, generator, options)


def _run(engine: Engine, name: str, generator: TextGenerator, options: GenerationOptions) -> None:
    """Run one job to its end."""
    ended, errors = Flag(), []

    def receive(event: Event) -> None:
        if isinstance(event, ErrorEvent):
            errors.append(event.error)
        if isinstance(event, ErrorEvent | JobEnd):
            ended.set()

    if isinstance(generator, TextCompleter):
        unused = set(generator.tokenizer.unused)
        first = next(token for token in range(generator.model.vocab_size) if token not in unused)
        engine.complete(name, [first], options, receive)
    else:
        engine.translate(name, "a", options, receive)
    ended.wait()
    for error in errors:
        sentence = str(error) if isinstance(error, StepError) else explain_error(error)
        if sentence is None:
            raise error
        raise UserError(f"{name} cannot be served: {sentence}") from error
