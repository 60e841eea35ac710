"""Files of a folder that others wrote, before they are read."""

from pathlib import Path

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


def _resolve(file: Path) -> Path | None:
    """Return the file that a path leads to; None if its links form a loop."""
    try:
        return file.resolve(strict=file.is_symlink())
    except (OSError, RuntimeError):
        return None
