"""Checks of values that the parser accepts: null where a value is needed, and objects that no config holds."""

import inspect
import json
import types
import typing
from argparse import SUPPRESS
from collections.abc import Callable, Iterable
from dataclasses import is_dataclass
from typing import Any

from jsonargparse import set_dumper

from lightning_xt.system.discovery import init_parameters
from lightning_xt.system.imports import imported

PLACEHOLDER = "Unable to serialize instance "
"""Text that jsonargparse writes in place of an object."""
PLAIN_JSON = "plain_json"
"""Format of jsonargparse with that text for all objects."""
set_dumper(PLAIN_JSON, lambda options: json.dumps(options, default=lambda value: f"{PLACEHOLDER}{value}"))


def check_values(options: Any, slot: str, hint: Any = None) -> None:
    """Check the options of a class, and of the classes inside them.

    Args:
        options: a parsed config: values, lists, and mappings of which some have a class_path.
        slot: their place, such as `model`.
        hint: the type of the option that they are the value of.

    Raises:
        ValueError: an option that must have a value is null, or an object cannot be written into a config.
    """
    if isinstance(options, list):
        for each in options:
            check_values(each, slot)
    if isinstance(options, str) and options.startswith(PLACEHOLDER):
        raise ValueError(
            f"--{slot} is {options.removeprefix(PLACEHOLDER)}, an object that config.yaml cannot hold, so that the run "
            "would not resume; give a text or a number, or let the class have one by default"
        )
    if not isinstance(options, dict):
        return
    path, values = options.get("class_path"), options.get("init_args")
    found = imported(path) if isinstance(path, str) else None
    if found is None and isinstance(hint, type) and is_dataclass(hint):
        found, values = hint, options
    if found is None or not isinstance(values, dict):
        for name, value in options.items():
            check_values(value, f"{slot}.{name}")
        return
    accepted = _hints(found)
    for name, value in values.items():
        if value is None and name in accepted and not _takes_none(accepted[name]):
            raise ValueError(
                f"--{slot}.{name} is null, but {found.__name__} needs a value there; give one, or omit the option"
            )
        check_values(value, f"{slot}.{name}", accepted.get(name))


def refuse_nulls(actions: Iterable[Any], options: Any) -> None:
    """Raise a ValueError if an option of a parser is null that has another default and does not take null."""
    for action in actions:
        hint = getattr(action, "_typehint", None) or action.type
        if (
            hint is None
            or action.default in (None, SUPPRESS)
            or options.get(action.dest) is not None
            or _takes_none(hint)
        ):
            continue
        section = action.dest.partition(".")[0]
        name = action.dest if options.get(section) is not None else section
        raise ValueError(f"--{name} is null, but it needs a value; give one, or omit the option")


def _hints(found: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of the parameters of a class or a function; empty if they cannot be resolved."""
    try:
        if inspect.isclass(found):
            parameters = init_parameters(found)
            inits = [vars(each)["__init__"] for each in reversed(found.__mro__) if "__init__" in vars(each)]
            hints = {name: hint for init in inits for name, hint in typing.get_type_hints(init).items()}
        else:
            parameters, hints = dict(inspect.signature(found).parameters), typing.get_type_hints(found)
    except (NameError, TypeError, ValueError):
        return {}
    return {name: hint for name, hint in hints.items() if name in parameters and parameters[name].default is not None}


def _takes_none(hint: Any) -> bool:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(map(_takes_none, typing.get_args(hint)))
    if typing.get_origin(hint) is typing.Literal:
        return None in typing.get_args(hint)
    return hint in (None, type(None), Any, object)
