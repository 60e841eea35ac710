"""What generate can be asked for."""

import difflib
import inspect
import json
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from lightning_xt.commands.errors.parse_errors import sentence
from lightning_xt.commands.generation.inference import Inference
from lightning_xt.commands.options.arguments import RUN
from lightning_xt.commands.options.config_files import check_configs, checked_values
from lightning_xt.commands.trainer.run_choice import config_files
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.system.messages import UserError, own_sentence
from lightning_xt.training.config_parser import ConfigParser

DESCRIPTION = """Continues prompts, or translates them with an encoder-decoder. A single prompt's text appears as it is
produced; prompts of a file become JSON lines."""
FLAGS = ("--stream", "--jsonl", "--interactive", "--show_probabilities", "--log_probs", "--compile")
"""Options that are on where they stand without a value."""
VALUES = ("true", "false", "null")
"""What a flag may be given."""
SEVERAL = ("--stop", "--amateur")
"""Options that may be given several times."""

VALUE = re.compile(r'key "(\w+)":.*Expected a <class \'(int|float|bool)\'>.*Given value: ([^\n]*)', re.DOTALL)
"""What jsonargparse says of a value of another type."""
CHOICE = re.compile(r'key "(\w+)":.*Expected a typing\.Literal\[(.*?)\].*Given value: ([^\n]*)', re.DOTALL)
"""What it says of a word that is none of a few."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What generate reads, and how it shows what it finds.

    Args:
        prompts: a file with a prompt on each line, or a .jsonl file whose objects have a `prompt`, each plain or .gz;
            - = standard input, a prompt on each line.
        output: the file to write. None = standard output.
        jsonl: whether to write an object of JSON for each prompt. None = where prompts come from a file or from
            standard input, or log-probabilities are asked for.
        stream: whether text appears as it is produced. None = where it is the only one.
        interactive: whether to take turns: what is typed is appended to all that was read and produced before.
        show_probabilities: whether to colour what is drawn, from green for probable to red for improbable, or to put
            log-probabilities into JSON lines.
        color: whether there are colours; auto = on a terminal.
    """

    prompts: str | None = None
    output: str | None = None
    jsonl: bool | None = None
    stream: bool | None = None
    interactive: bool = False
    show_probabilities: bool = False
    color: Literal["auto", "always", "never"] = "auto"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The options of one call of generate.

    Args:
        run: whose checkpoint answers.
        prompt: prompts of the command line. None = none was given.
        shown: what is read and how the rest is shown.
        sampling: how texts are made.
        inference: what takes part.
    """

    run: str
    prompt: list[str] | None
    shown: Shown
    sampling: GenerationOptions
    inference: Inference

    @property
    def jsonl(self) -> bool:
        """Whether JSON lines are written."""
        if self.shown.jsonl is not None:
            return self.shown.jsonl
        return self.shown.prompts is not None or self.sampling.log_probs

    @property
    def streamed(self) -> bool:
        """Whether texts appear as they are produced."""
        if self.shown.stream is not None:
            return self.shown.stream
        single = len(self.prompt or [""]) == 1 and self.shown.prompts is None
        return single and self.sampling.num_sequences == 1 and not self.jsonl and self.shown.output is None


def parse(args: Sequence[str]) -> Asked:
    """What the arguments ask for.

    Raises:
        UserError: they are mistaken, or contradict each other.
    """
    parser = ConfigParser(prog="lightning-xt generate", description=DESCRIPTION, exit_on_error=False)
    add_generate_options(parser)
    args = _completed(args)
    check_configs(config_files(args))
    try:
        with checked_values(args):
            options = parser.instantiate(parser.parse_args(args))
    except ArgumentError as error:
        raise UserError(own_sentence(error) or _told(str(error), parser)) from error
    found = Asked(
        run=options.run,
        prompt=options.prompt,
        shown=Shown(**_of(Shown, options)),
        sampling=GenerationOptions(**_of(GenerationOptions, options)),
        inference=Inference(**_of(Inference, options)),
    )
    _check(found)
    if found.jsonl and found.shown.show_probabilities:
        return replace(found, sampling=replace(found.sampling, log_probs=True))
    return found


def _of(kind: type, options: Namespace) -> dict[str, Any]:
    return {name: options[name] for name in inspect.signature(kind).parameters}


def add_generate_options(parser: ArgumentParser) -> None:
    """Declare the options of generate."""
    parser.add_argument("run", metavar="RUN", help=RUN)
    parser.add_argument("-c", "--config", action="config", help="A YAML file of these options.")
    parser.add_argument("--prompt", action="append", type=str, help="The text to continue or to translate; repeatable.")
    for kind in (Shown, GenerationOptions, Inference):
        parser.add_class_arguments(kind)


def _completed(args: Sequence[str]) -> list[str]:
    """The arguments, flags with a value, and options of several texts given one text at a time, whatever is in it."""
    given, found = deque(args), []
    # Where RUN is yet to come, it may be what stands behind a flag.
    run_first = not args[:1] or not args[0].startswith("-")
    while given:
        arg = given.popleft()
        name, equals, value = arg.partition("=")
        if arg in FLAGS:
            valued = bool(given) and not given[0].startswith("-") and (run_first or given[0].lower() in VALUES)
            found.append(f"{arg}={given.popleft() if valued else 'true'}")
        elif name not in SEVERAL or (equals and value.startswith("[")):
            found.append(arg)
        elif equals or (value := given.popleft() if given else ""):
            found.append(f"{name}+={json.dumps([value], ensure_ascii=False)}")
        else:
            raise UserError(f"generate: argument {name}: expected one argument")
    return found


def _told(message: str, parser: ArgumentParser) -> str:
    """What is wrong with the arguments, in a sentence."""
    known = [name for action in parser._actions for name in action.option_strings if name.startswith("--")]
    match = re.match(r"unrecognized arguments: (--[^\s=]+)", message)
    # Where a letter is wrong, what is so much closer than all others is meant.
    if match and (close := difflib.get_close_matches(match[1], known, n=1, cutoff=0.9)):
        return f"generate: unknown option {match[1]!r}; did you mean {close[0]}?"
    if match := VALUE.search(message):
        return f"generate: argument --{match[1]}: invalid {match[2]} value: {match[3]!r}"
    if match := re.match(r"unrecognized arguments: ([^-]\S*)", message):
        return f"generate: {match[1]!r} stands where an option was expected; a text of several words needs quotes"
    if match := re.search(r"Sequence'>\. Got value: (\w+)$", message):
        return f"generate: --filters is a list; add to it with --filters+={match[1]}"
    if match := CHOICE.search(message):
        return f"generate: argument --{match[1]}: expected one of {match[2]}, not {match[3]!r}"
    if message.endswith("arguments are required: run"):
        return f"generate: RUN is required: {RUN}"
    return f"generate: {sentence(message, known)}"


def _check(asked: Asked) -> None:
    """Raises a UserError for options that contradict each other."""
    shown, sequences = asked.shown, asked.sampling.num_sequences
    asked.inference.check(asked.sampling)
    given = [name for name in ("prompts", "output", "jsonl", "stream") if getattr(shown, name) not in (None, False)]
    if asked.prompt and shown.prompts is not None:
        raise UserError(f"--prompt and --prompts {shown.prompts} both say what to answer; give one of them")
    if shown.interactive and (given or asked.sampling.log_probs):
        raise UserError(
            f"--interactive reads what you type and shows what follows; leave --{[*given, 'log_probs'][0]} away"
        )
    if shown.interactive and sequences > 1:
        raise UserError(f"--interactive goes on from one answer, but {sequences} are asked for; ask for one")
    if shown.stream and asked.jsonl:
        raise UserError("--stream shows text as it is produced, and JSON lines hold whole answers; leave one away")
    if shown.stream and sequences > 1:
        raise UserError(
            f"--stream shows one answer as it is produced, but {sequences} are asked for; leave --stream away"
        )
    if shown.output is not None and not Path(shown.output).absolute().parent.is_dir():
        raise UserError(f"--output {shown.output}: there is no such folder; make it first")
