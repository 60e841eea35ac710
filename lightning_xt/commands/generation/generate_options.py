"""Options of generate."""

import difflib
import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from lightning_xt.commands.models.inference import Inference
from lightning_xt.commands.options.arguments import RUN, list_options, read_run_options
from lightning_xt.commands.options.config_files import ConfigFiles
from lightning_xt.commands.options.output_files import check_output
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.system.messages import UserError, find_own_sentence
from lightning_xt.training.config_parser import ConfigParser
from lightning_xt.training.parse_errors import explain_parse_error

DESCRIPTION = """Complete prompts, or translate them with an encoder-decoder. A single prompt's text is printed as it is
generated; prompts of a file become JSON lines."""
FLAGS = ("stream", "jsonl", "interactive", "show_probabilities", "log_probs", "compile")
"""Options that are true where they are given without a value."""
SEVERAL = MappingProxyType(
    {
        "stop": "A text before which a completion ends, wherever the boundaries of its tokens are; repeatable.",
        "amateur": "A run of a weaker model; tokens that it likes too count less (contrastive decoding); repeatable.",
    }
)
"""Options that are given once for each text, whatever is in it."""

VALUE = re.compile(r'key "(\w+)":.*Expected a <class \'bool\'>.*Given value: ([^\n]*)', re.DOTALL)
"""Message of jsonargparse about a value that is neither true nor false."""


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Options of what generate reads and prints.

    Args:
        prompts: a file with a prompt on each line, or a .jsonl file whose objects have a `prompt`, each plain or .gz;
            - = standard input, a prompt on each line.
        output: the file to write. None = standard output.
        jsonl: whether to write an object of JSON for each prompt. None = where prompts come from a file or from
            standard input, or log-probabilities are requested.
        stream: whether to print text as it is generated. None = where there is one completion only.
        interactive: whether to take turns: what is typed is appended to all text so far.
        show_probabilities: whether to colour generated text, from green for probable to red for improbable, or to put
            log-probabilities into JSON lines.
        color: whether to print colours; auto = on a terminal.
    """

    prompts: str | None = None
    output: str | None = None
    jsonl: bool | None = None
    stream: bool | None = None
    interactive: bool = False
    show_probabilities: bool = False
    color: Literal["auto", "always", "never"] = "auto"


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """Options of generate; `prompt` holds those of the command line, None if there are none."""

    run: str
    prompt: list[str] | None
    output_options: OutputOptions
    sampling: GenerationOptions
    inference: Inference

    @property
    def jsonl(self) -> bool:
        """Return True if JSON lines are written."""
        if self.output_options.jsonl is not None:
            return self.output_options.jsonl
        return self.output_options.prompts is not None or self.sampling.log_probs

    @property
    def streamed(self) -> bool:
        """Return True if texts are printed as they are generated."""
        output = self.output_options
        if output.stream is not None:
            return output.stream
        single = len(self.prompt or [""]) == 1 and output.prompts is None
        return single and self.sampling.num_sequences == 1 and not self.jsonl and output.output is None


def parse(args: Sequence[str]) -> GenerateOptions:
    """Parse the command line; UserError if an option is unknown or invalid, or options contradict each other."""
    parser = ConfigParser(prog="lightning-xt generate", description=DESCRIPTION, exit_on_error=False)
    add_generate_options(parser)
    configs = ConfigFiles(read_run_options("generate", args).config, args)
    try:
        with configs.serving():
            options = parser.instantiate(parser.parse_args(args))
    except ArgumentError as error:
        raise UserError(find_own_sentence(error) or _explain(str(error), parser)) from error
    found = GenerateOptions(
        run=options.run,
        prompt=options.prompt,
        output_options=OutputOptions(**_select(OutputOptions, options)),
        sampling=GenerationOptions(**_select(GenerationOptions, options)),
        inference=Inference(**_select(Inference, options)),
    )
    _check(found)
    if found.jsonl and found.output_options.show_probabilities:
        return replace(found, sampling=replace(found.sampling, log_probs=True))
    return found


def add_generate_options(parser: ConfigParser) -> None:
    """Declare the options of generate."""
    parser.add_argument("run", metavar="RUN", help=RUN)
    parser.add_argument("-c", "--config", action="config", help="A YAML file of these options.")
    parser.add_argument("--prompt", action="append", type=str, help="The text to complete or to translate; repeatable.")
    for kind in (OutputOptions, GenerationOptions, Inference):
        parser.add_class_arguments(kind, skip=set(SEVERAL))
    for name, text in SEVERAL.items():
        parser.add_argument(f"--{name}", action="append", type=_parse_texts, default=[], help=text)
    for action in parser._actions:
        if action.dest in FLAGS:
            action.nargs, action.const = "?", True


def _parse_texts(value: Any) -> Any:
    """Return a text of the command line, or the texts of a config."""
    return [str(each) for each in value] if isinstance(value, list) else str(value)


def _select(kind: type, options: Namespace) -> dict[str, Any]:
    return {name: options[name] for name in inspect.signature(kind).parameters}


def _explain(message: str, parser: ArgumentParser) -> str:
    """Return a sentence that says what is wrong with the options, from a message of jsonargparse."""
    known = list_options(parser)
    match = re.match(r"unrecognized arguments: (--[^\s=]+)", message)
    # Where a letter is wrong, what is so much closer than all others is meant.
    if match and (close := difflib.get_close_matches(match[1], known, n=1, cutoff=0.9)):
        return f"generate: unknown option {match[1]!r}; did you mean {close[0]}?"
    if (match := VALUE.search(message)) and match[1] in FLAGS:
        return (
            f"generate: --{match[1]} is true, false or null, not {match[2]!r}; give it without a value, "
            f"--{match[1]}=false, or RUN before it"
        )
    if match := re.match(r"unrecognized arguments: ([^-]\S*)", message):
        return f"generate: {match[1]!r} stands where an option was expected; a text of several words needs quotes"
    if match := re.search(r"Sequence'>\. Got value: (\w+)$", message):
        return f"generate: --filters is a list; add to it with --filters+={match[1]}"
    if message.endswith("arguments are required: run"):
        return f"generate: RUN is required: {RUN}"
    return f"generate: {explain_parse_error(message, known)}"


def _check(options: GenerateOptions) -> None:
    """Raise a UserError for options that contradict each other."""
    output, sampling = options.output_options, options.sampling
    count = sampling.num_sequences
    options.inference.check(sampling)
    given = [name for name in ("prompts", "output", "jsonl", "stream") if getattr(output, name) not in (None, False)]
    if options.prompt and output.prompts is not None:
        raise UserError(f"--prompt and --prompts {output.prompts} both give prompts; omit one of them")
    if output.interactive and (given or sampling.log_probs):
        raise UserError(f"--interactive reads what you type and prints what follows; omit --{[*given, 'log_probs'][0]}")
    if output.interactive and count > 1:
        raise UserError(f"--interactive continues one completion, but {count} are requested; request one")
    if output.jsonl is False and sampling.log_probs:
        raise UserError("--log_probs are written as JSON lines, which --jsonl=false switches off; omit one")
    if output.stream and options.jsonl:
        raise UserError("--stream prints text as it is generated, and JSON lines hold whole completions; omit one")
    if output.stream and count > 1:
        raise UserError(f"--stream prints one completion as it is generated, but {count} are requested; omit --stream")
    if output.output is not None:
        file = Path(output.output).resolve()
        if not file.parent.is_dir():
            raise UserError(f"--output {output.output}: there is no such folder; create it first")
        if output.prompts is not None and file == Path(output.prompts).resolve():
            raise UserError(f"--output {output.output} is the file of --prompts, which it would replace; name another")
        check_output("--output", Path(output.output))
