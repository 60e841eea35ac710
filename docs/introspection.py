"""The package as the documentation sees it: its families, their slots in models, and the files of its classes."""

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

from lightning_xt.commands.catalogue.families import find_families, find_slots
from lightning_xt.system.docstrings import PACKAGE

ROOT = Path(__file__).parents[1]
MODELS = ("language_model.LanguageModel", "masked_language_model.MaskedLanguageModel", "seq2seq.Seq2Seq")


def find_places() -> dict[type, list[str]]:
    """Return the options that choose a class of each family, found by walking the signatures of the models."""
    found: dict[type, list[str]] = {}
    for kind in MODELS:
        module, name = kind.split(".")
        start = getattr(importlib.import_module(f"{PACKAGE}.training.{module}"), name)
        for base, slots in find_slots(find_families(), {"model": start}).items():
            places = found.setdefault(base, [])
            places += [f"`{path}`" + (f" of `{owner.__name__}`" if owner else "") for path, owner, _ in slots]
    return {base: list(dict.fromkeys(places)) for base, places in found.items()}


def own_items(path: Path) -> list[Any]:
    """Return the documented classes and functions that a file defines."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    module = importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    own = (each for each in vars(module).values() if getattr(each, "__module__", None) == module.__name__)
    return [each for each in own if inspect.getdoc(each)]


def get_file(item: Any) -> str:
    """Return the file that defines a class or a function, from the root of the repository."""
    return str(Path(sys.modules[item.__module__].__file__ or "").relative_to(ROOT))
