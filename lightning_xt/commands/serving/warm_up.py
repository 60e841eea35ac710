"""First tokens of a model, by which everything is compiled and loaded before a client comes."""

from dataclasses import replace
from threading import Semaphore

from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.serving.events import ErrorEvent, Event, JobEnd, StepError
from lightning_xt.inference.serving.serving_engine import Engine
from lightning_xt.inference.text_completer import TextCompleter
from lightning_xt.inference.text_generator import TextGenerator
from lightning_xt.system.messages import UserError, explain_error

TOKENS = 4
SEVERAL = 4
"""Rows that are decoded at once, after one alone."""
SOURCES = ("a", "a a a")


def warm_up(engine: Engine, name: str, generator: TextGenerator, rows: int) -> None:
    """Decode a few tokens in one row, in several and in all; UserError if the model cannot."""
    # Products of 8-bit and 4-bit weights have other programs for few rows than for many.
    for count in sorted({1, min(SEVERAL, rows), rows}):
        options = GenerationOptions(max_new_tokens=TOKENS, temperature=1.0, num_return_sequences=count)
        _run(engine, name, generator, options)


def _run(engine: Engine, name: str, generator: TextGenerator, options: GenerationOptions) -> None:
    """Run one job to its end; for a translator two of several rows, because sources of two lengths need a mask."""
    ended, errors = Semaphore(0), []

    def receive(event: Event) -> None:
        if isinstance(event, ErrorEvent):
            errors.append(event.error)
        if isinstance(event, ErrorEvent | JobEnd):
            ended.release()

    jobs = 1
    if isinstance(generator, TextCompleter):
        unused = set(generator.tokenizer.unused)
        first = next(token for token in range(generator.model.vocab_size) if token not in unused)
        engine.complete(name, [first], options, receive)
    else:
        copies = options.num_return_sequences
        jobs = min(2, copies)
        for number in range(jobs):
            own = replace(options, num_return_sequences=copies // 2 if number else copies - (jobs - 1) * (copies // 2))
            engine.translate(name, SOURCES[number], own, receive)
    for _ in range(jobs):
        ended.acquire()
    for error in errors:
        sentence = str(error) if isinstance(error, StepError) else explain_error(error)
        if sentence is None:
            raise error
        raise UserError(f"{name} cannot be served: {sentence}") from error
