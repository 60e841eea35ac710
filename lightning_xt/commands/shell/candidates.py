"""Candidates for the last word of a command line."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning_xt.commands.options.command_modules import find_commands
from lightning_xt.commands.shell import table_cache
from lightning_xt.commands.shell.chosen_classes import find_classes
from lightning_xt.commands.shell.places import list_config_names, list_run_names
from lightning_xt.commands.shell.schema_options import SchemaOptions

MOST = 2000
"""Candidates that are printed."""
LONGEST = 90
"""Characters of a description."""
Candidate = tuple[str, str]
PLACES = {
    "-c": list_config_names,
    "--config": list_config_names,
    "--init_from": list_run_names,
    "--ckpt_path": lambda word: [("best", "the run's best checkpoint"), ("last", "its last"), *list_run_names(word)],
    "RUN": list_run_names,
}
"""Places that a value is looked up in, by its option or by the name of an argument."""
VARIANTS = ("NAME", "OTHER")
"""Names of arguments that take a variant."""


def print_candidates(line: str, shell: str) -> None:
    """Print the candidates for the last word of a command line: a line each, then a tab and a description."""
    words = split_words(line)
    for name, text in find_candidates(words, table_cache.load() or {})[:MOST]:
        short = text if len(text) <= LONGEST else f"{text[: LONGEST - 3].rsplit(' ', 1)[0]}..."
        print(f"{name}\t{short}" if short and shell != "bash" else name)


def split_words(line: str) -> list[str]:
    """Split a command line into words, the last of which may be empty or lack its closing quote."""
    for end in ("", '"', "'"):
        try:
            words = shlex.split(line + end)
        except ValueError:
            continue
        return [*words, ""] if not end and line[-1:].isspace() else words
    return line.split(" ")


def find_candidates(words: Sequence[str], table: Mapping[str, Any]) -> list[Candidate]:
    """Return what the last of some words may become, with descriptions.

    Args:
        words: of a command line, from `lightning-xt` to the one that is completed.
        table: of all commands; may be empty.
    """
    if len(words) < 2:
        return []
    word = words[-1]
    known = table.get("commands") or {name: {} for name in find_commands()}
    if len(words) == 2:
        found = [(name, each.get("summary", "")) for name, each in known.items()] + [("--help", ""), ("--version", "")]
        found = found if word.startswith("-") else found[:-2]
    else:
        command = known.get(words[1], {})
        if "schema" in command or not command:
            schema = table.get("schemas", {}).get(command.get("schema"), {"properties": {}, "definitions": {}})
            found = list(_complete_config_command(words[2:], command, schema))
        else:
            found = list(_complete_plain_command(words[2:], command, table))
    return [(name, text) for name, text in dict(found).items() if name.startswith(word)]


def _complete_config_command(
    words: Sequence[str], command: Mapping[str, Any], schema: Mapping[str, Any]
) -> Iterator[Candidate]:
    """Yield candidates for a command whose options are those of a config."""
    *before, word = words
    options = SchemaOptions(schema, find_classes(before))
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    if not equals:
        last = before[-1] if before else ""
        option = last if last.startswith("-") and "=" not in last and last not in command.get("flags", ()) else ""
        value = word
    found: list[Candidate] = []
    if option and (equals or not word.startswith("-")):
        own = command.get("options", {}).get(option)
        found = [(name, "") for name in own["values"]] if own else list(_list_values(option, value, options))
    if found:
        yield from ((f"{option}={name}" if equals else name, text) for name, text in found)
    elif not before and not word.startswith("-") and "arguments" not in command:
        yield from list_run_names(word)
    if not equals and (word.startswith("-") or (not word and not option)):
        yield from _list_option_names(word, options, command)


def _list_values(option: str, word: str, options: SchemaOptions) -> Iterator[Candidate]:
    """Yield the values of an option."""
    if option in PLACES:
        yield from PLACES[option](word)
        return
    path = option.removeprefix("--").removesuffix(".help").replace(".init_args", "").removesuffix(".class_path")
    found = options.find(path)
    classes = option.endswith(".help")
    for name, text in ({} if found is None else found.values).items():
        if not classes or text:
            yield name, text


def _list_option_names(word: str, options: SchemaOptions, command: Mapping[str, Any]) -> Iterator[Candidate]:
    """Yield the options at the depth of a word."""
    outer = word.removeprefix("--").rpartition(".")[0] if word.startswith("--") else ""
    parent = options.find(outer.replace(".init_args", ""))
    if parent is None:
        return
    start = f"--{outer}." if outer else "--"
    names = [name for name in parent.options if outer or name not in command.get("unused", ())]
    fitting = [name for name in names if f"{start}{name}".startswith(word)]
    for name in fitting:
        found = options.read(outer, name, parent)
        if found.is_value:
            yield f"{start}{name}", found.text
        if found.options and (not found.is_value or len(fitting) == 1 or word == f"{start}{name}"):
            yield f"{start}{name}.", f"options of {name}"
    if outer:
        yield f"{start}help", f"classes and options of {outer}"
    else:
        yield from ((name, each["text"]) for name, each in command.get("options", {}).items())
        yield from (
            ("--config", "a config: a shipped one, or your own file"),
            *((flag, "") for flag in command.get("flags", ())),
        )


def _complete_plain_command(
    words: Sequence[str], command: Mapping[str, Any], table: Mapping[str, Any]
) -> Iterator[Candidate]:
    """Yield candidates for a command that reads no config."""
    *before, word = words
    given = 0
    while before:
        first, *before = before
        option = command["options"].get(first.partition("=")[0])
        if option is not None and not option["flag"] and "=" not in first:
            if not before:
                yield from _list_argument_values(option, word, table)
                return
            del before[0]
        elif first in command["commands"]:
            command, given = command["commands"][first], 0
        elif option is None:
            given += 1
    if word.startswith("-"):
        yield from ((name, each["text"]) for name, each in command["options"].items())
        return
    yield from ((name, "") for name in command["commands"])
    if command["arguments"]:
        place = command["arguments"][min(given, len(command["arguments"]) - 1)]
        yield from _list_argument_values(place, word, table)


def _list_argument_values(argument: Mapping[str, Any], word: str, table: Mapping[str, Any]) -> Iterator[Candidate]:
    yield from ((name, "") for name in argument["values"])
    metavar = argument["metavar"]
    if metavar in PLACES:
        yield from PLACES[metavar](word)
    elif metavar in VARIANTS:
        yield from table["variants"].items()
