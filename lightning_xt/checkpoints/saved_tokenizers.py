"""Files of tokenizers in the folder of a run, and the options of its config that name such a file."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

OPTIONS = {"tokenizer": ("text", "source"), "target_tokenizer": ("target",)}
"""Options of data that choose a tokenizer, and the uses for which a run saves it."""


class SavedTokenizer(NamedTuple):
    """Options of a tokenizer with a `file`, and the copy of that file in the folder of the run."""

    options: dict[str, Any]
    file: Path


def name_tokenizer_file(use: str, saved_name: str) -> str:
    """Return the name of a tokenizer's file in the folder of a run, such as source_tokenizer.json."""
    return f"{use}_{saved_name}"


def list_saved_tokenizers(config: Mapping[str, Any], folder: Path) -> Iterator[SavedTokenizer]:
    """Yield the tokenizers of a run's config that name a file of which the run has a copy."""
    for option, uses in OPTIONS.items():
        options: Any = config
        for key in ("data", "init_args", option, "init_args"):
            options = options.get(key) if isinstance(options, Mapping) else None
        if not isinstance(options, dict) or not isinstance(file := options.get("file"), str):
            continue
        saved_name = "tokenizer.model" if file.endswith((".model", ".model.gz")) else "tokenizer.json"
        copies = (folder / name_tokenizer_file(use, saved_name) for use in uses)
        if (copy := next((each for each in copies if each.is_file()), None)) is not None:
            yield SavedTokenizer(options, copy)


def find_learned_tokenizer(config: Mapping[str, Any], folder: Path) -> Path | None:
    """Return the file of the sub-words that a language model's run has learned; None if its config names a file."""
    options: Any = config
    for key in ("data", "init_args", "tokenizer", "init_args"):
        options = options.get(key) if isinstance(options, Mapping) else None
    saved = folder / name_tokenizer_file("text", "tokenizer.json")
    learns = isinstance(options, Mapping) and "file" in options and options["file"] is None
    return saved if learns and options.get("model") is None and saved.is_file() else None


def use_saved_tokenizers(config: Mapping[str, Any], folder: Path) -> None:
    """Let a run's config name the copies of tokenizers in its folder, by paths that hold from any folder."""
    for each in list_saved_tokenizers(config, folder):
        each.options["file"] = str(each.file.absolute())


def replace_missing_tokenizers(config: Mapping[str, Any], folder: Path) -> None:
    """Let a run's config name the copies in place of files that are no longer there, as in a run that was moved."""
    for each in list_saved_tokenizers(config, folder):
        if not os.path.isfile(os.path.expanduser(each.options["file"])):
            each.options["file"] = str(each.file)
