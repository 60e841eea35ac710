"""The catalogue as the documentation sees it: families, their variants, their slots and their overlays.

Nothing is listed by hand: importing the package is enough to find all of it.
"""

import functools
import importlib
import inspect
import re
import sys
import typing
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docstring_parser

import lightning_xt
from lightning_xt.system.discovery import find_variants, import_submodules

ROOT = Path(__file__).parents[1]
PACKAGE = "lightning_xt"


@functools.cache
def families() -> dict[str, type]:
    """Return the base class of every family by the name of its folder, in the order of the tree."""
    import_submodules(lightning_xt)
    found: dict[str, type] = {}
    for path in sorted((ROOT / PACKAGE).rglob("base.py")):
        module = importlib.import_module(module_name(path))
        for base in vars(module).values():
            if inspect.isclass(base) and base.__module__ == module.__name__ and members(base):
                found[path.parent.name] = base
    return found


def members(base: type) -> list[type]:
    """Return the public variants of a family that belong to the package, by name."""
    own = (v for v in find_variants(base) if v.__module__.startswith(PACKAGE + ".") and not v.__name__.startswith("_"))
    return sorted(own, key=lambda variant: variant.__name__)


def find_slots() -> dict[type, list[str]]:
    """Return the YAML paths at which each family is chosen, found by walking the signatures of both models."""
    bases = tuple(families().values())
    found: dict[type, list[str]] = {}
    for kind in ("language_model.LanguageModel", "masked_language_model.MaskedLanguageModel", "seq2seq.Seq2Seq"):
        module, name = kind.split(".")
        start = getattr(importlib.import_module(f"{PACKAGE}.training.{module}"), name)
        waiting, seen = deque([("model", start, "")]), {start}
        while waiting:
            path, owner, only = waiting.popleft()
            for slot, parameter in inspect.signature(owner).parameters.items():
                made = list(made_by(hints(owner).get(slot)))
                base = next((base for one in made for base in bases if base in one.__mro__), None)
                if base is not None and _is_option(owner, slot):
                    found.setdefault(base, []).append(f"`{path}.{slot}`{only}")
                for built in members(base) if base is not None else made:
                    if built not in seen and built.__module__.startswith(PACKAGE):
                        seen.add(built)
                        own = "" if base is None or built is parameter.default else f" of `{built.__name__}`"
                        waiting.append((f"{path}.{slot}", built, own))
    return {base: list(dict.fromkeys(places)) for base, places in found.items()}


def _is_option(owner: type, name: str) -> bool:
    """Distinguish a slot of a class from an argument of its parent, which the class does not describe."""
    return name in descriptions(owner)


def overlays(cls: type) -> list[Path]:
    """Return the overlays of `configs/variants` that name a class."""
    word = re.compile(rf"\b{cls.__name__}\b")
    files = sorted((ROOT / "configs/variants").glob("*.yaml"))
    return [file for file in files if word.search(re.sub(r"#.*", "", file.read_text()))]


def own_items(path: Path) -> list[Any]:
    """Return the documented classes and functions that a file defines."""
    module = importlib.import_module(module_name(path))
    own = (each for each in vars(module).values() if getattr(each, "__module__", None) == module.__name__)
    return [each for each in own if inspect.getdoc(each)]


def made_by(hint: Any) -> Iterator[type]:
    """Yield the classes that the factories in an annotation make."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Callable, typing.get_origin(Callable[[], int])) and args:
        if inspect.isclass(args[-1]):
            yield args[-1]
    else:
        for arg in args:
            if not isinstance(arg, list):
                yield from made_by(arg)


def hints(cls: type) -> dict[str, Any]:
    """Return the annotations of a constructor, resolved if they can be."""
    found: dict[str, Any] = {}
    for each in (each for each in reversed(cls.__mro__) if "__init__" in vars(each) and each is not object):
        try:
            found |= typing.get_type_hints(vars(each)["__init__"])
        except (NameError, TypeError):
            found |= {name: p.annotation for name, p in inspect.signature(each).parameters.items()}
    return found


def descriptions(cls: type) -> dict[str, str]:
    """Return the descriptions of a class's options, from its docstring and those of its bases."""
    found: dict[str, str] = {}
    for each in reversed(cls.__mro__):
        parsed = docstring_parser.parse(inspect.getdoc(each) or "") if each.__module__.startswith(PACKAGE) else None
        found |= {p.arg_name: (p.description or "").replace("\n", " ") for p in (parsed.params if parsed else ())}
    return found


def source(item: Any) -> str:
    """Return the file that defines a class or a function, from the root of the repository."""
    return str(Path(sys.modules[item.__module__].__file__ or "").relative_to(ROOT))


def module_name(path: Path) -> str:
    """Return the import path of a file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
