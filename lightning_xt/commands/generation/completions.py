"""Completions and translations of prompts by the checkpoint of a run."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from lightning_xt.commands.generation.generate_options import GenerateOptions, parse
from lightning_xt.commands.generation.interactive import converse
from lightning_xt.commands.generation.rendering import choose_renderer, show, stream_pieces
from lightning_xt.commands.models.loading import load
from lightning_xt.data.prompt_files import Prompt, number_prompts, read_prompts
from lightning_xt.inference.detokenizer import TextPiece
from lightning_xt.inference.text_generator import TextGenerator
from lightning_xt.system.files import replace_file
from lightning_xt.system.json_text import to_json
from lightning_xt.system.messages import make_visible

INTERRUPTED = 128 + 2
"""Exit code after Ctrl-C."""
AT_ONCE = 16
"""Batches of prompts that are completed before their completions are written."""


def generate(args: Sequence[str]) -> int:
    """Complete or translate the prompts that the options name; return the exit code."""
    options = parse(args)
    try:
        _run(options)
    except KeyboardInterrupt:
        # What was generated stays on the terminal.
        show("\n")
        return INTERRUPTED
    finally:
        options.inference.report()
    return 0


def _run(options: GenerateOptions) -> None:
    module = load(options.run)
    options.inference.apply(module)
    output = options.output_options
    terminal = output.output is None and sys.stdout.isatty()
    paint = choose_renderer(output.show_probabilities, output.color, terminal=terminal)
    if output.interactive:
        converse(module.text_generator, options.sampling, paint)
        return
    prompts = _read_prompts(options)
    if options.streamed:
        for prompt in prompts:
            with closing(stream_pieces(module.text_generator, prompt, options.sampling)) as shown:
                for piece in shown:
                    show(paint(piece))
            show("\n")
    else:
        with _open_output(output.output) as write:
            _write_completions(module.text_generator, prompts, options, paint, write)
    if note := module.text_generator.find_excess([prompt["prompt"] for prompt in prompts], options.sampling):
        print(note, file=sys.stderr)


def _read_prompts(options: GenerateOptions) -> list[Prompt]:
    file = options.output_options.prompts
    if file is not None:
        # The model says whether a prompt may be empty.
        return read_prompts(file, "--prompts", may_be_empty=True, standard_input=True)
    return number_prompts(options.prompt or [""])


def _write_completions(
    text_generator: TextGenerator,
    prompts: Sequence[Prompt],
    options: GenerateOptions,
    paint: Callable[[TextPiece], str],
    write: Callable[[str], object],
) -> None:
    """Write whole completions, in order; some are written before others are begun."""
    sampling = options.sampling
    for first in range(0, len(prompts), AT_ONCE * sampling.batch):
        for each in text_generator.complete(prompts[first : first + AT_ONCE * sampling.batch], sampling):
            if options.jsonl:
                write(to_json(each.as_dict(sampling)) + "\n")
            else:
                for number, answer in enumerate(each.completions, 1):
                    if sampling.num_sequences > 1:
                        write(f"=== sequence {number} of {len(each.completions)} ===\n")
                    write("".join(map(paint, [TextPiece(each.leading_text), *answer.pieces])) + "\n")
            if problem := each.metadata.get("problem"):
                print(make_visible(problem), file=sys.stderr)


@contextmanager
def _open_output(output: str | None) -> Iterator[Callable[[str], object]]:
    """Yield a function that writes to standard output, or to a file that appears once it is whole."""
    if output is None:
        yield show
        return
    try:
        with replace_file(Path(output).resolve()) as file:
            yield lambda text: file.write(text.encode("utf-8", "replace"))
    except OSError as error:
        raise OSError(
            f"--output {output} cannot be written ({error.strerror or error}); make room, or name another file"
        ) from error
