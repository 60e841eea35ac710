"""Discovery of the variants of a family: to import the package is to register its classes."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType

WITH_EXTRA = ("lightning_xt.server.", "lightning_xt.exchange.remote_code.")
"""Folders that need an extra; no config names their classes."""


def import_submodules(package: ModuleType) -> None:
    """Import every module below a package, so that each class is known by its short name."""
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__") and not module.name.startswith(WITH_EXTRA):
            importlib.import_module(module.name)


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
    """Yield the concrete classes of a family, each once, in any order."""
    subclasses: list[type] = family.__subclasses__()
    for subclass in dict.fromkeys(subclasses):
        yield from find_variants(subclass)
        if not inspect.isabstract(subclass):
            yield subclass
