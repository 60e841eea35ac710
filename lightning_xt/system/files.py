"""Files that are complete or absent, and logs that may be neither."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def expand_home(path: str | Path, place: str | None = None) -> Path:
    """Replace ~ or ~name at the beginning of a path by the home folder.

    Args:
        path: the path.
        place: the option with the path, for messages. None = the path.

    Raises:
        ValueError: the home folder is unknown.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{place or path}: the home folder {Path(path).parts[0]} is unknown; write the whole path, or ./{path} for "
            "a file of this name"
        ) from error


@contextmanager
def replace_file(path: Path, part: Path | None = None) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` when the block ends without an error.

    The temporary file is in the same folder, so that it is moved in one step, and it reaches the disk before that:
    readers find the old file or the new one, even after a crash.

    Args:
        path: the file to replace.
        part: name of the temporary file in the same folder. None = one fixed name, so that the rest of a killed process
            is overwritten; processes that write at the same time each need another name.
    """
    _refuse_special(path)
    part = path.with_name(f".{path.name}.part") if part is None else part
    try:
        with open_new(part) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def require_replaceable(path: Path) -> None:
    """Raise an OSError if `replace_file` could not replace a file, such as in a folder that takes no new files."""
    _refuse_special(path)
    # Processes that check at the same time each need another name.
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        open_new(part).close()
    finally:
        part.unlink(missing_ok=True)


def _refuse_special(path: Path) -> None:
    """Raise an OSError for a folder, and for a device or a pipe: a file in its place would take it from everybody."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))


def open_new(path: Path) -> BinaryIO:
    """Open a new file in place of what has its path; a link there is removed and not followed."""
    path.unlink(missing_ok=True)
    return open(path, "xb")


def read_log(file: Path) -> tuple[bytes, str | None]:
    """Read a log, of which a crash or a full disk may have left anything; absent or empty ones are empty.

    A path that cannot be read as a file is set aside; so is a link, through which a log would continue elsewhere.

    Returns:
        The contents, and a sentence about a path that was set aside.
    """
    if not os.path.lexists(file):
        return b"", None
    try:
        if file.is_symlink():
            return b"", set_aside(file, "it is a link")
        # Another kind of file, such as a pipe, might wait for ever.
        return (file.read_bytes(), None) if file.is_file() else (b"", set_aside(file, "it is not a regular file"))
    except OSError as error:
        return b"", set_aside(file, str(error.strerror))


def set_aside(file: Path, reason: str) -> str:
    """Rename a log that cannot be continued, so that a new one can begin; return a sentence that says so."""
    number = 0
    while os.path.lexists(kept := file.with_name(f"{file.name}.damaged.{number}")):
        number += 1
    file.rename(kept)
    return f"{file} cannot be continued ({reason}): it is kept as {kept.name}, and a new one begins"
