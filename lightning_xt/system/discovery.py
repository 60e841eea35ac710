"""Discovery of the variants of a family: to import the module of a class is to register it."""

import functools
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

PACKAGE = Path(__file__).parents[1]

WITH_EXTRA = ("lightning_xt.server.", "lightning_xt.exchange.remote_code.")
"""Folders that need an extra; no config names their classes."""


def import_submodules(package: ModuleType) -> None:
    """Import every module below a package, so that each class is known by its short name."""
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__") and not module.name.startswith(WITH_EXTRA):
            importlib.import_module(module.name)


def import_named(name: str) -> None:
    """Import the modules whose files are named for a class of the package, such as `alibi.py` for ALiBi."""
    for module in _list_modules().get(name.lower(), ()):
        importlib.import_module(module)


@functools.cache
def _list_modules() -> dict[str, list[str]]:
    """List the modules by the class that each may be named for, in small letters."""
    found: dict[str, list[str]] = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)
        if not file.name.startswith("__") and not module.startswith(WITH_EXTRA):
            found.setdefault(file.stem.replace("_", ""), []).append(module)
    return found


def import_path(kind: type) -> str:
    """Return the path by which a config names a class."""
    return f"{kind.__module__}.{kind.__qualname__}"


def init_parameters(kind: type) -> dict[str, inspect.Parameter]:
    """Return a class's options: the parameters of its constructor, and of its bases' where it passes options on."""
    found: dict[str, inspect.Parameter] = {}
    for each in (each for each in kind.__mro__ if "__init__" in vars(each)):
        parameters = [p for name, p in inspect.signature(vars(each)["__init__"]).parameters.items() if name != "self"]
        found = {p.name: p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)} | found
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found


def find_variants(family: type) -> Iterator[type]:
    """Yield the concrete classes of a family that a config can name, each once, in any order."""
    subclasses: list[type] = family.__subclasses__()
    for subclass in dict.fromkeys(subclasses):
        yield from find_variants(subclass)
        if not inspect.isabstract(subclass) and _has_path(subclass):
            yield subclass


def _has_path(kind: type) -> bool:
    """Return False for a class that no path leads to: of a function, or made by a parser and not collected yet."""
    found: object = sys.modules.get(kind.__module__)
    for name in kind.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is kind
