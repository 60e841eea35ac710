"""Files of a folder that others wrote, before they are read."""

import json
from pathlib import Path
from typing import Any

from lightning_xt.system.messages import UserError

READ = (".json", ".safetensors", ".model")
"""Suffixes of the files that an import reads."""
LARGEST_TEXT = 1 << 28
"""Most bytes of a file besides weights; the largest tokenizers have some ten million."""


def check_files(folder: Path) -> None:
    """Check that what an import reads are files of this folder.

    Raises:
        UserError: a link leads out of the folder, or a file is a device, a pipe, or too large.
    """
    home = folder.resolve()
    # In the cache of Hugging Face's hub the files of a snapshot are links to those that several snapshots share.
    root = home.parent.parent if home.parent.name == "snapshots" else home
    for file in sorted(folder.iterdir()):
        if file.suffix not in READ:
            continue
        target = _resolve(file)
        if target is None or not target.is_relative_to(root):
            raise UserError(f"{file} is a link out of its folder, which an import does not follow; copy the file there")
        if not file.is_file():
            raise UserError(f"{file} is not a file; copy the folder again")
        if file.suffix != ".safetensors" and (size := file.stat().st_size) > LARGEST_TEXT:
            raise UserError(
                f"{file} has {size / 1e6:.0f} MB, and at most {LARGEST_TEXT / 1e6:.0f} are read; copy it again"
            )


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON mapping; UserError if there is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{file.parent} has no {file.name}; give a folder that transformers has saved") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read ({error}); copy the folder again") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} holds a {type(content).__name__}, not a mapping; copy the folder again")
    return content


def _resolve(file: Path) -> Path | None:
    """Return the file that a path leads to; None if its links form a loop."""
    try:
        return file.resolve(strict=file.is_symlink())
    except (OSError, RuntimeError):
        return None
