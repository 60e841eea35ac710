"""Folders that are complete or absent."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning_xt.system.messages import UserError


@contextmanager
def write_folder(option: str, folder: Path) -> Iterator[Path]:
    """Open a new folder that gets its name when the block ends without an error; UserError if it cannot be written.

    Args:
        option: the option that names it, in messages.
        folder: the folder; it may exist if it is empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists already; remove it, or name another folder with {option}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        home = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise UserError(f"{option} {folder} cannot be made ({error.strerror}); name another folder") from error
    part = home / folder.name
    try:
        part.mkdir()
        yield part
        for file in part.rglob("*"):
            if file.is_file():
                # Libraries give some files to their owner alone; a server may be somebody else.
                file.chmod(part.stat().st_mode & 0o666)
        if folder.is_dir():
            folder.rmdir()
        part.rename(folder)
    except OSError as error:
        if error.errno is None:
            raise
        reason = error.strerror or error
        raise UserError(f"{option} {folder} cannot be written ({reason}); make room, or name another folder") from error
    finally:
        shutil.rmtree(home, ignore_errors=True)
