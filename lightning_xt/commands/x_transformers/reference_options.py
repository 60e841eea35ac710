"""Options of x-transformers: their defaults, and in words what stands for each here."""

import functools
from pathlib import Path
from typing import Any

import yaml

from lightning_xt.commands.catalogue.variant_list import list_variants
from lightning_xt.system.docstrings import find_counterparts

PREFIXES = {"Attention": "attn_", "FeedForward": "ff_"}
"""Prefixes of the options of a class, as a user of x-transformers types them."""
REQUIRED = "required"
"""Default of an option that has none."""
HELPERS = "other classes and helpers"
"""Section of the classes besides those whose options are known."""


@functools.cache
def read_texts() -> dict[str, dict[str, str | None]]:
    """Read the options by class, with the text of each; None if the docstring of a class says all of it."""
    found: dict[str, dict[str, str | None]] = _read("options.yaml")
    return found


@functools.cache
def read_defaults() -> dict[str, dict[str, Any]]:
    """Read the defaults of the options of each constructor; `REQUIRED` if there is none."""
    found = {owner: dict(options) for owner, options in _read("defaults.yaml").items()}
    found.pop("kinds")
    return found


@functools.cache
def read_kinds() -> dict[str, str]:
    """Read the types of the options whose defaults do not say them."""
    return {option: kind for kind, options in _read("defaults.yaml")["kinds"].items() for option in options}


def explain_option(owner: str, option: str) -> str:
    """Return what stands for an option here, or why nothing does."""
    if text := read_texts()[owner].get(option):
        return text.removeprefix("not here: ")
    typed, found = PREFIXES.get(owner, "") + option, []
    for family, kind in list_variants():
        options, remark = find_counterparts(kind)
        if typed in options:
            found.append(f"set {family}: {kind.__name__} in the printed config" + (f" ({remark})" if remark else ""))
    return " or ".join(found)


def _read(name: str) -> Any:
    return yaml.safe_load(Path(__file__).with_name(name).read_text(encoding="utf-8"))
