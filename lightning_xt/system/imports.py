"""What a config or a checkpoint may have imported: decided before anything is."""

import importlib.util
import inspect
import os
import site
import sys
import sysconfig
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

PACKAGES = ("lightning_xt", "lightning", "torch", "torchmetrics")
"""Installed packages whose classes a config may name."""
ALLOW = "LIGHTNING_XT_ALLOW"
"""The environment variable that names more of them, with commas between."""


def refused_path(path: str) -> str | None:
    """Why nothing is imported from a path, with the way out; None where it may be. Nothing is imported to know.

    What is neither installed nor of the standard library is the user's own, wherever Python finds it.

    Args:
        path: as it was typed, such as `mine.Position`.
    """
    package = path.partition(".")[0]
    if _may_be_named(package):
        return None
    return (
        f"{path} is not imported: configs and checkpoints may name what is in {', '.join(PACKAGES)} and in modules of "
        f"your own, nothing else that is installed; if you trust it, set the environment variable {ALLOW}={package}"
    )


def refused_find(path: str, found: object) -> str | None:
    """The same for what an allowed module only passes on, such as `torch.os.system`.

    Args:
        path: the import path that led to it.
        found: what was imported.
    """
    if inspect.ismodule(found):
        place = found.__name__
    elif inspect.isclass(found) or inspect.isroutine(found):
        place = f"{getattr(found, '__module__', None) or path}.{found.__qualname__}"
    else:
        return None
    return None if _may_be_named(place.partition(".")[0]) else f"{path} is {place}, and {refused_path(place)}"


def _may_be_named(package: str) -> bool:
    return package in (*PACKAGES, *_allowed()) or _is_own(package)


def _allowed() -> list[str]:
    return [name.strip() for name in os.environ.get(ALLOW, "").split(",")]


def _is_own(package: str) -> bool:
    """Whether a top-level module lies neither among those of Python nor among those that were installed."""
    if package in sys.builtin_module_names:
        return False
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:
        # A module without a specification: the program that runs, or one that it made.
        return True
    if spec is None:
        # The import will say that there is none.
        return True
    return spec.origin not in ("built-in", "frozen") and not any(map(_is_installed, _places(spec)))


def _places(spec: ModuleSpec) -> Iterator[Path]:
    found = [*(spec.submodule_search_locations or ()), *([spec.origin] if spec.has_location and spec.origin else ())]
    yield from (Path(place).resolve() for place in found)


def _is_installed(place: Path) -> bool:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = [sysconfig.get_path(name) for name in names] + [*site.getsitepackages(), site.getusersitepackages()]
    return any(place.is_relative_to(Path(folder).resolve()) for folder in folders)
