"""Models built from options as a config spells them, without Lightning and without its parser."""

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

from lightning_xt.commands.catalogue.families import find_made, get_hints
from lightning_xt.system.discovery import init_parameters
from lightning_xt.system.public_names import find_public


def make_recipe(kind: type, options: Mapping[str, Any]) -> Any:
    """Return a class with its options, in which names and mappings have become classes with theirs."""
    hints, known = get_hints(kind), init_parameters(kind)
    return partial(
        kind,
        **{name: _resolve(value, hints.get(name), known[name].default) for name, value in options.items()},
    )


def _resolve(value: Any, hint: Any, default: Any) -> Any:
    """Return the value of an option: a recipe where the option takes a class, else the value as it stands."""
    if value is None or next(find_made(hint), None) is None:
        return value
    if isinstance(value, list):
        return [_resolve(each, hint, default) for each in value]
    if isinstance(value, str):
        return find_public(value.rpartition(".")[2])
    if "class_path" in value:
        return make_recipe(find_public(value["class_path"].rpartition(".")[2]), value.get("init_args") or {})
    # Options without a class are those of the default one.
    return make_recipe(default if inspect.isclass(default) else default.func, value)
