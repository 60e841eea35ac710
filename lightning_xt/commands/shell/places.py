"""Configs, runs and files that a word may name."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from lightning_xt.checkpoints.runs import ROOT, list_runs
from lightning_xt.system.shipped_configs import list_configs


def list_config_names(word: str) -> Iterator[tuple[str, str]]:
    """Yield the shipped configs and the files of the user that a word may become, with descriptions."""
    for name, file in list_configs().items():
        if name.startswith(word):
            yield name, _read_first_comment(file)
    yield from list_files(word, lambda name: name.endswith((".yaml", ".yml")))


def list_run_names(word: str, root: str = ROOT) -> Iterator[tuple[str, str]]:
    """Yield the runs that a word may become, checkpoint files, and folders that may hold some."""
    listed = set()
    for name in _list_folders(root):
        path = os.path.join(root, name)
        numbers = _list_numbers(path)
        # A shell completes a word only if one candidate is left: a run is not listed as a folder too.
        listed |= {f"{path}/", *(f"{path}/{number}/" for number in numbers)}
        if not numbers:
            continue
        if path.startswith(word):
            yield path, f"the newest of {len(numbers)}" if len(numbers) > 1 else "one run"
        if word.startswith(path):
            yield from ((each, "") for number in numbers if (each := os.path.join(path, number)).startswith(word))
    files = list_files(word, lambda name: name.endswith(".ckpt"))
    yield from (each for each in files if each[0] not in listed)


def list_files(word: str, fits: Callable[[str], bool]) -> Iterator[tuple[str, str]]:
    """Yield the files with a suitable name that a word may become, and folders, which end with a slash."""
    folder, start = os.path.split(word)
    try:
        entries = sorted(os.scandir(os.path.expanduser(folder) or "."), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(start) and (start or not entry.name.startswith(".")):
            path = os.path.join(folder, entry.name)
            if entry.is_dir():
                yield f"{path}/", ""
            elif fits(entry.name):
                yield path, ""


def _list_numbers(name: str) -> list[str]:
    """List the numbers of the runs of a name that have begun."""
    try:
        runs = list(list_runs(Path(name)))
    except OSError:
        return []
    return [run.name for run in runs if any((run / each).exists() for each in ("config.yaml", "checkpoints"))]


def _list_folders(folder: str) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    except OSError:
        return []


def _read_first_comment(file: Path) -> str:
    try:
        with open(file, encoding="utf-8") as lines:
            first = lines.readline()
    except (OSError, UnicodeDecodeError):
        return ""
    return first.removeprefix("#").strip() if first.startswith("#") else ""
