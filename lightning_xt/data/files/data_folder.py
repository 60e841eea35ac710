"""The data folder of this machine, and atomic writes to it."""

import errno
import os
import secrets
import socket
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from lightning_xt.system.cache_folder import cache_folder as cache_folder
from lightning_xt.system.files import expand_home, replace_file

ABANDONED = 3600  # seconds without a write after which a part file is abandoned
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
"""Errors of a folder without write permission."""


def data_folder() -> Path:
    """Return the folder for data sets: `$LIGHTNING_XT_DATA`, else `lightning-xt` in the user's cache folder."""
    if chosen := os.environ.get("LIGHTNING_XT_DATA"):
        return expand_home(chosen, f"LIGHTNING_XT_DATA={chosen}")
    return cache_folder()


def prepared_folders() -> list[Path]:
    """Return the folders of prepared files: in the data folder, else in the user's cache if that is read-only."""
    return list(dict.fromkeys([data_folder() / "prepared", cache_folder() / "prepared"]))


def store(name: str, key: str, chunks: Callable[[], Iterable[bytes]]) -> Path:
    """Write a stream to a file of the data folder, or of the user's cache if the data folder is read-only.

    An existing file is complete. Of several processes, one writes the file and the others wait.

    Args:
        name: start of the file's name.
        key: hex digest of the sources of the stream and of its options.
        chunks: opens the stream; not called if the file exists.

    Raises:
        OSError: no folder is writable. Nothing is left behind.
    """
    file_name = f"{name}-{key[:16]}.bin"
    folders = prepared_folders()
    for folder in folders:
        if os.path.isfile(folder / file_name):
            _remove_abandoned(folder / file_name)
            return folder / file_name
    for folder in folders:
        try:
            return _write_once(folder / file_name, chunks)
        except OSError as error:
            failure = error
            if error.errno not in FORBIDDEN:
                break
    raise OSError(
        f"cannot write prepared data to {folder} ({failure.strerror or failure}); free it or make it writable, "
        "or set the environment variable LIGHTNING_XT_DATA to a folder that is"
    ) from failure


def write_atomically(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file next to its destination, and move it there once it is safe on the disk."""
    part = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        with replace_file(path, part) as file:
            for chunk in chunks:
                file.write(chunk)
    finally:
        if isinstance(chunks, Generator):
            # Close its files and progress bar now, not when the error is collected.
            chunks.close()


def _write_once(path: Path, chunks: Callable[[], Iterable[bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    with FileLock(lock):
        try:
            # Another process may have written it during the wait.
            if not path.is_file():
                _remove_abandoned(path)
                write_atomically(path, chunks())
        finally:
            # A process that waits for the removed lock finds the file, or at worst writes it again.
            lock.unlink(missing_ok=True)
    return path


def _remove_abandoned(path: Path) -> None:
    """Remove the part files of writers that were killed, if permitted."""
    for part in path.parent.glob(f".{path.name}.*.part"):
        # Another process may do the same, and another user's file may be unreadable.
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > ABANDONED or _is_dead(part, path):
                part.unlink()


def _is_dead(part: Path, path: Path) -> bool:
    """Return True if the part's writer was a process of this host and has ended."""
    process = part.name.removeprefix(f".{path.name}.{socket.gethostname()}.").partition(".")[0]
    if not process.isdecimal():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    return False
