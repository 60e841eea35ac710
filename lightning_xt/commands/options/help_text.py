"""Descriptions of options and classes as lines of a help text."""

import inspect
import re
import textwrap
import typing
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from lightning_xt.system.discovery import init_parameters
from lightning_xt.system.docstrings import get_docstring

WIDTH = 100
COLUMN = 34
"""Characters of an option before its text."""
MOST = 30
"""Characters of a type next to its option."""
TEXTS = {
    "config": "a config, or the name of a shipped one; -c for short; of several the last one wins",
    "ckpt_path": "the checkpoint to work on: best or last of the config's run, or a file",
    "print_config": "print all options of the command, and end",
    "seed_everything": "seed of all random numbers",
    "data": "what the model reads",
    "model": "kind of model",
}
"""Descriptions of options that Lightning declares."""


class Option(NamedTuple):
    """An option in a help text.

    Args:
        path: its name without dashes.
        kind: its type, or the family of its classes.
        default: its default as text; empty for a required one.
        text: its description.
    """

    path: str
    kind: str
    default: str
    text: str


def read_hint(hint: Any) -> tuple[tuple[type, ...], int]:
    """Return the families of a type, and the number of arguments of its factories."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Callable and arguments:
        return ((arguments[-1],) if inspect.isclass(arguments[-1]) else ()), len(arguments[0])
    if not arguments:
        known = inspect.isclass(hint) and hint.__module__.partition(".")[0] in ("lightning", "lightning_xt", "torch")
        return ((hint,) if known and not issubclass(hint, torch.Tensor) else ()), 0
    found = [read_hint(each) for each in arguments if each is not Ellipsis and not isinstance(each, (str, int, list))]
    return tuple(dict.fromkeys(family for each in found for family in each[0])), max((n for _, n in found), default=0)


def get_class(default: Any, variants: Sequence[type] = ()) -> type | None:
    """Return the class that a default builds; of a family with one class that class; else None."""
    if isinstance(default, dict):
        name = str(default.get("class_path")).rpartition(".")[2]
        return next((each for each in variants if each.__name__ == name), None)
    built = default.func if isinstance(default, partial) else default
    return built if inspect.isclass(built) else variants[0] if len(variants) == 1 else None


def describe_parameter(path: str, owner: type) -> Option:
    name = path.rpartition(".")[2]
    parameter = init_parameters(owner)[name]
    default = "" if parameter.default is parameter.empty else _format_default(parameter.default)
    return Option(path, _format_kind(parameter.annotation), default, find_description(name, owner))


def find_description(name: str, owner: type) -> str:
    """Return the description of a class's option; "" if there is none."""
    # It may stand at the base class that declares the option.
    texts = (each.description for kind in owner.__mro__ for each in get_docstring(kind).params if each.arg_name == name)
    return next((text for text in texts if text), "")


def describe_action(action: Any) -> Option:
    text = TEXTS.get(action.dest) or re.sub(r"\s*\(type: .*\)$|%\(\w+\)s", "", " ".join((action.help or "").split()))
    default = "" if action.dest in TEXTS and not action.default else _format_default(action.default)
    return Option(action.dest, _format_kind(getattr(action, "_typehint", str)), default, text.strip())


def _format_kind(hint: Any) -> str:
    """Return the type of an option as help texts show it: CLASS where it takes a class, TEXT for a text."""
    annotation = inspect.formatannotation(hint)
    if read_hint(hint)[0]:
        return "NAME|CLASS" if re.search(r"\bstr\b", annotation) else "CLASS"
    kind = re.sub(r"typing\.|collections\.abc\.|[a-z_]+\.(?=[A-Za-z])", "", annotation).replace("'", "")
    kind = re.sub(r"Literal\[([^]]*)\]", lambda match: match[1].replace(", ", "|"), kind)
    kind = re.sub(r"Optional\[(.*)\]$|Union\[(.*)\]$", lambda match: (match[1] or match[2]).replace(", ", " | "), kind)
    parts = [part for part in kind.split(" | ") if part not in ("None", "NoneType")]
    plain = all(part in ("int", "float", "str", "bool", "Path") for part in parts)
    return ("|".join(parts).upper() if plain else "|".join(parts)).replace("STR", "TEXT")


def _format_default(default: Any) -> str:
    if (kind := get_class(default)) is not None:
        return kind.__name__
    if isinstance(default, dict) and "class_path" in default:
        return str(default["class_path"]).rpartition(".")[2]
    if default is None or isinstance(default, bool):
        return {None: "null", True: "true", False: "false"}[default]
    return "" if default in ((), "==SUPPRESS==") else str(default)


def format_option(option: Option, *, short: bool = False) -> Iterator[str]:
    """Yield an option as lines; `short` keeps the first sentence of its text."""
    text = re.split(r"(?<=\.)\s", " ".join(option.text.split()), maxsplit=1)[0] if short else option.text
    kind = option.kind
    if len(kind) > MOST:
        kind, text = "VALUE", f"{text} Type: {kind.replace('|', ', ')}."
    default = f" [{option.default}]" if option.default and len(option.default) < COLUMN else ""
    yield from wrap(f"  --{option.path} {kind}", clean_text(text) + default)


def clean_text(text: str) -> str:
    """Return a description without markup, in the words of a config."""
    text = re.sub(r" *Default: ``[^`]*``\.?|:\w+:(?=`)", "", " ".join(text.split())).replace("`", "")
    return re.sub(r"\bNone\b", "null", text)


def wrap(name: str, text: str) -> Iterator[str]:
    lines = textwrap.wrap(text, WIDTH - COLUMN) or [""]
    if len(name) >= COLUMN:
        yield name
    else:
        yield f"{name:{COLUMN}}{lines.pop(0)}".rstrip()
    yield from (" " * COLUMN + line for line in lines)
