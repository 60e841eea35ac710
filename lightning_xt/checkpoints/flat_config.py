"""Configs as one mapping from dotted names to plain values."""

from collections.abc import Mapping
from typing import Any


def flatten_config(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the options of a config by dotted name. A class is its name without the package, next to its options.

    So `{"norm": {"class_path": "lightning_xt.RMSNorm", "init_args": {"eps": 1e-6}}}` is
    `{"norm": "RMSNorm", "norm.eps": 1e-6}`. Lists are texts if they hold more than plain values.
    """
    found: dict[str, Any] = {}
    for name, value in config.items():
        path = f"{prefix}{name}"
        if not isinstance(value, Mapping):
            found[path] = value if _is_plain(value) else format_value(value)
            continue
        if "class_path" in value:
            found[path] = get_class_name(value)
            value = value.get("init_args") or {}
        found |= flatten_config(value, f"{path}.")
    return found


def format_value(value: Any) -> str:
    """Format a value of a config on one line."""
    if isinstance(value, Mapping):
        name = get_class_name(value) if "class_path" in value else ""
        options = (value.get("init_args") or {}) if name else value
        shown = ", ".join(f"{option} {format_value(each)}" for option, each in options.items())
        return f"{name}({shown})" if shown else name
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(format_value, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def get_class_name(value: Mapping[str, Any]) -> str:
    """Return the name of a class in a config, without its package."""
    return str(value["class_path"]).rpartition(".")[2]


def _is_plain(value: Any) -> bool:
    """Return whether a value is a number, a text, null, or a list of these."""
    return all(each is None or isinstance(each, bool | int | float | str) for each in _as_list(value))


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
