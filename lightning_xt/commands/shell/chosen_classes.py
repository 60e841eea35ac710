"""Classes that the configs and options of a command line put into slots."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning_xt.checkpoints.runs import find_run_config
from lightning_xt.system.shipped_configs import find_config

MOST_BYTES = 1 << 20
"""Bytes of a config that is read while a user types."""


def find_classes(words: Sequence[str]) -> dict[str, str]:
    """Return the classes of slots by path, those of later words in place of those of earlier ones."""
    found: dict[str, str] = {}
    for option, value in pair_options(words):
        if option in ("-c", "--config"):
            found |= dict(_read_config(find_config(value)))
        elif option.startswith("--"):
            path = option[2:].replace(".init_args", "").removesuffix(".class_path")
            found[path] = value.rpartition(".")[2]
    return found


def pair_options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the options of a command line with their values, and a run as the config that it has saved."""
    if words and not words[0].startswith("-") and (config := find_run_config(Path(words[0]))) is not None:
        yield "-c", str(config)
    for word, following in itertools.pairwise([*words, ""]):
        if word.startswith("-") and "=" in word:
            option, _, value = word.partition("=")
            yield option, value
        elif word.startswith("-") and following and not following.startswith("-"):
            yield word, following


def _read_config(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the classes of a config by path; nothing if it cannot be read."""
    import yaml

    try:
        if file.stat().st_size > MOST_BYTES:
            return
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ValueError, yaml.YAMLError):
        return
    yield from _walk("", content, 0)


def _walk(path: str, value: Any, depth: int) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value.rpartition(".")[2]
    if isinstance(value, dict) and depth < 32:
        for name, each in value.items():
            inner = path if name in ("class_path", "init_args") else f"{path}.{name}".lstrip(".")
            yield from _walk(inner, each, depth + 1)
