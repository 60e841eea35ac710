"""Check for null in options that need a value, because the parser accepts null for any."""

import inspect
import types
import typing
from collections.abc import Callable
from typing import Any

from lightning_xt.system.discovery import init_parameters
from lightning_xt.system.imports import imported


def refuse_null_options(options: Any, slot: str) -> None:
    """Refuse null (ValueError) in the options of a class, and of the classes inside them, unless it is a value there.

    The options are values, lists, and mappings of which some have a class_path; their place is a slot, as `model`.
    """
    if isinstance(options, list):
        for each in options:
            refuse_null_options(each, slot)
    if not isinstance(options, dict):
        return
    path, values = options.get("class_path"), options.get("init_args")
    found = imported(path) if isinstance(path, str) else None
    if found is None or not isinstance(values, dict):
        for name, value in options.items():
            refuse_null_options(value, f"{slot}.{name}")
        return
    accepted = _hints(found)
    for name, value in values.items():
        if value is None and name in accepted and not _takes_none(accepted[name]):
            raise ValueError(
                f"--{slot}.{name} is null, but {found.__name__} needs a value there; give one, or omit the option"
            )
        refuse_null_options(value, f"{slot}.{name}")


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
