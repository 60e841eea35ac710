"""The user's own modules: in the current folder, on PYTHONPATH, or allowed by name."""

import importlib.util
import os
import site
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib.machinery import ModuleSpec
from pathlib import Path

ALLOW = "LIGHTNING_XT_ALLOW"
"""The environment variable that names installed packages that count as the user's, with commas between."""


def is_own(package: str) -> bool:
    """Return True if a top-level module is the user's: neither of Python nor installed, or allowed by name."""
    if package in (name.strip() for name in os.environ.get(ALLOW, "").split(",")):
        return True
    if package in sys.stdlib_module_names:
        return False
    try:
        with add_current_folder():
            spec = importlib.util.find_spec(package)
    except ValueError:
        # A module without a specification: the running program, or one that it made.
        return True
    # The import of a missing module raises its own error.
    return spec is None or not any(map(_is_installed, _list_places(spec)))


def _list_places(spec: ModuleSpec) -> Iterator[Path]:
    found = [*(spec.submodule_search_locations or ()), *([spec.origin] if spec.has_location and spec.origin else ())]
    yield from (Path(place).resolve() for place in found)


def _is_installed(place: Path) -> bool:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = [sysconfig.get_path(name) for name in names] + [*site.getsitepackages(), site.getusersitepackages()]
    return any(place.is_relative_to(Path(folder).resolve()) for folder in folders)


_FOLDER: ContextVar[str | None] = ContextVar("folder", default=None)


@contextmanager
def hold_current_folder() -> Iterator[None]:
    """Look for the user's modules in the folder of now within the block.

    The parser enters the folder of each config that it reads, whose modules nobody has named.
    """
    folder = _FOLDER.get()
    with suppress(FileNotFoundError):
        folder = folder or os.getcwd()
    token = _FOLDER.set(folder)
    try:
        yield
    finally:
        _FOLDER.reset(token)


@contextmanager
def add_current_folder() -> Iterator[None]:
    """Let Python find modules in the current folder within the block, after all installed ones."""
    with hold_current_folder():
        folder = _FOLDER.get()
    added = [] if folder is None or folder in sys.path else [folder]
    sys.path.extend(added)
    try:
        yield
    finally:
        for folder in added:
            sys.path.remove(folder)
