"""Families of the package, their variants, the slots that choose them and the overlays that name them.

Nothing is listed by hand: importing the package is enough to find all of it.
"""

import functools
import importlib
import inspect
import re
import typing
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning_xt.system.discovery import find_variants, import_submodules
from lightning_xt.system.docstrings import PACKAGE, describe_options
from lightning_xt.system.shipped_configs import list_configs

ROOT = Path(__file__).parents[2]
PARTS = "nn"
"""Room of the families that a network is composed of."""
OBJECTIVES = "objectives"
ROOMS = (PARTS, "models", OBJECTIVES, "data.denoisers", "generation.filters", "generation.methods")
"""Rooms of the catalogue: the parts of a network, what trains it, and what decodes with it."""


@functools.cache
def find_families(*rooms: str) -> dict[str, type]:
    """Return the base class of every family of some rooms, by the name of its folder and in the order of the tree.

    No room = all of the package.
    """
    found: dict[str, type] = {}
    for room in rooms or ("",):
        import_submodules(importlib.import_module(f"{PACKAGE}.{room}".rstrip(".")))
        for path in sorted((ROOT / room.replace(".", "/")).rglob("base.py")):
            module = importlib.import_module(".".join((PACKAGE, *path.relative_to(ROOT).with_suffix("").parts)))
            for base in vars(module).values():
                if inspect.isclass(base) and base.__module__ == module.__name__ and list_members(base):
                    found[path.parent.name] = base
    return found


def list_members(base: type) -> list[type]:
    """Return the public variants of a family that belong to the package, by name."""
    own = (v for v in find_variants(base) if v.__module__.startswith(PACKAGE + ".") and not v.__name__.startswith("_"))
    return sorted(own, key=lambda variant: variant.__name__)


class Slot(typing.NamedTuple):
    """Place of a config that takes a class of a family.

    Args:
        path: its option, without dashes.
        owner: the class that has the option, if another than the default has to be chosen for it.
        listed: True if it takes a list of classes.
    """

    path: str
    owner: type | None
    listed: bool


def find_slots(families: Mapping[str, type], starts: Mapping[str, type]) -> dict[type, list[Slot]]:
    """Return the slots of each family, found by walking the signatures of models, by their options."""
    bases = tuple(families.values())
    found: dict[type, list[Slot]] = {}
    for option, start in starts.items():
        waiting: deque[tuple[str, type, type | None]] = deque([(option, start, None)])
        seen = {start}
        while waiting:
            path, owner, chosen = waiting.popleft()
            known, hints = describe_options(owner), get_hints(owner)
            for name, parameter in inspect.signature(owner).parameters.items():
                made = list(find_made(hints.get(name)))
                base = next((base for one in made for base in bases if base in one.__mro__), None)
                # An option that the class does not describe is an argument of its parent.
                if base is not None and name in known:
                    slot = Slot(f"{path}.{name}", chosen, "Sequence" in str(hints[name]))
                    found.setdefault(base, []).append(slot)
                for built in list_members(base) if base is not None else made:
                    if built not in seen and built.__module__.startswith(PACKAGE):
                        seen.add(built)
                        default = base is None or built is parameter.default
                        waiting.append((f"{path}.{name}", built, None if default else built))
    return {base: list(dict.fromkeys(places)) for base, places in found.items()}


def find_made(hint: Any) -> Iterator[type]:
    """Yield the classes that the factories in an annotation make."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Callable, typing.get_origin(Callable[[], int])) and args:
        if inspect.isclass(args[-1]):
            yield args[-1]
    else:
        for arg in args:
            if not isinstance(arg, list):
                yield from find_made(arg)


def get_hints(kind: type) -> dict[str, Any]:
    """Return the annotations of a constructor, resolved if they can be."""
    found: dict[str, Any] = {}
    for each in (each for each in reversed(kind.__mro__) if "__init__" in vars(each) and each is not object):
        try:
            found |= typing.get_type_hints(vars(each)["__init__"])
        except (NameError, TypeError):
            found |= {name: p.annotation for name, p in inspect.signature(each).parameters.items()}
    return found


def find_overlays(kind: type) -> dict[str, str]:
    """Return the texts of the overlays in `configs/variants` that name a class, the one named for it first."""
    word, own = re.compile(rf"\b{kind.__name__}\b"), f"variants/{kind.__module__.rpartition('.')[2]}.yaml"
    named = [name for name, text in _read_overlays().items() if word.search(re.sub(r"#.*", "", text))]
    return {name: _read_overlays()[name] for name in sorted(named, key=lambda name: (name != own, name))}


@functools.cache
def _read_overlays() -> dict[str, str]:
    files = {name: file for name, file in list_configs().items() if name.startswith("variants/")}
    return {name: file.read_text(encoding="utf-8") for name, file in files.items()}
