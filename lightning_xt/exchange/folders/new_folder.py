"""Folders that are complete or absent."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning_xt.system.messages import UserError


@contextmanager
def write_folder(option: str, folder: Path) -> Iterator[Path]:
    """Open a new folder that gets its name when the block ends without an error; UserError if it cannot be made.

    Args:
        option: the option that names it, in messages.
        folder: the folder; it may exist if it is empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists already; remove it, or name another folder with {option}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise UserError(f"{option} {folder} cannot be made ({error.strerror}); name another folder") from error
    try:
        yield part
        part.chmod(0o755)
        if folder.is_dir():
            folder.rmdir()
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
