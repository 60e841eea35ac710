"""Options of a run as one flat table."""

from collections.abc import Iterator, Mapping
from typing import Any


def flatten_options(options: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """Flatten nested options to dotted names, such as `model.decoder.attention.position: Rotary`.

    A class has its short name, and its options stand below it. A list is one text. Options that are None are omitted.
    """
    return {name: value for name, value in _walk(options, "") if value is not None}


def _walk(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        if "class_path" in value:
            yield name, shorten(value)
            value = value.get("init_args") or {}
        for key, each in value.items():
            yield from _walk(each, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        yield name, ", ".join(shorten(each) for each in value) or None
    else:
        yield name, value if isinstance(value, bool | int | float | str | None) else str(value)


def shorten(value: Any) -> str:
    """Return the name of a class, and its options if it has some; the text of anything else."""
    if not isinstance(value, Mapping):
        return str(value)
    options = ", ".join(f"{key} {shorten(each)}" for key, each in (value.get("init_args") or {}).items())
    kind = str(value["class_path"]).rpartition(".")[2] if "class_path" in value else ""
    return f"{kind}({options})" if options and kind else kind or options or str(dict(value))
