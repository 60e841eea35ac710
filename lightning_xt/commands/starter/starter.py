"""Contents of a starter, and what all starters share."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

import yaml

COLUMN = 32
"""Characters of an option before its comment."""
CORES = 2
"""Cores on which the configs take about five minutes."""


@dataclass(frozen=True, kw_only=True)
class Starter:
    """Contents of a starter.

    Args:
        config: text of its config.
        found: sentence about its data.
        commands: the next commands of a user.
        files: texts of its other files, by name.
    """

    config: str
    found: str
    commands: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)


def name_run(root: Path) -> str:
    """Return the name of the runs of a folder."""
    return root.resolve().name or "mine"


def refer(root: Path, path: str) -> str:
    """Return a path as the config of a folder names it: relative if it is within the folder."""
    whole = os.path.abspath(os.path.expanduser(path))
    inner = os.path.relpath(whole, os.path.realpath(root))
    return whole if inner.startswith(os.pardir) else inner


def fill(template: str, values: Mapping[str, object]) -> str:
    """Fill a template; a text becomes a value of YAML."""
    texts = {name: _format(value) for name, value in values.items()}
    lines = (_fill_line(line, texts) for line in template.strip("\n").splitlines())
    return "".join(f"{line}\n" for line in lines)


def _fill_line(line: str, texts: Mapping[str, str]) -> str:
    if line.lstrip().startswith("#"):
        return Template(line).substitute(texts)
    option, mark, comment = line.partition("  # ")
    found = Template(option.rstrip()).substitute(texts)
    return f"{found:{COLUMN}}  # {Template(comment.strip()).substitute(texts)}" if mark else found


def count_steps(steps: int) -> int:
    """Return the optimizer steps of about five minutes on this machine, of those that two cores take."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return steps if cores >= CORES else steps // 2


def _format(value: object) -> str:
    """Return a value in YAML, on one line."""
    return (
        yaml.safe_dump(value, width=1 << 20, allow_unicode=True, default_flow_style=True)
        .removesuffix("\n")
        .removesuffix("\n...")
    )
