"""Where data lives on this machine, and how a file gets there whole or not at all."""

import errno
import os
import secrets
import socket
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from lightning_xt.system.files import replacing

ABANDONED = 3600  # seconds without a write after which a part file has lost its writer
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
"""Errors that say that a folder is not ours to write."""


def data_folder() -> Path:
    """The folder for data sets: `$LIGHTNING_XT_DATA`, else `lightning-xt` in the user's cache folder."""
    if chosen := os.environ.get("LIGHTNING_XT_DATA"):
        return Path(chosen).expanduser()
    return cache_folder()


def cache_folder() -> Path:
    """What this package keeps for the user and could make again."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "lightning-xt"


def prepared_folders() -> list[Path]:
    """Where prepared files may be: in the data folder, or in the user's cache where that is read-only."""
    return list(dict.fromkeys([data_folder() / "prepared", cache_folder() / "prepared"]))


def store(name: str, key: str, chunks: Callable[[], Iterable[bytes]]) -> Path:
    """Keeps a stream of bytes in the data folder, or in the user's cache where the data folder may not be written.

    A file that is there is complete. It is written once, however many processes ask for it at once: the others wait
    for the first.

    Args:
        name: start of the file's name.
        key: hex digest of what the stream is made from, and how.
        chunks: opens the stream from its beginning; not called where the file is there.

    Raises:
        OSError: no folder can be written. Nothing stays behind.
    """
    file_name = f"{name}-{key[:16]}.bin"
    folders = prepared_folders()
    for folder in folders:
        if os.path.isfile(folder / file_name):
            _remove_abandoned(folder / file_name)
            return folder / file_name
    for folder in folders:
        try:
            return _written_once(folder / file_name, chunks)
        except OSError as error:
            failure = error
            if error.errno not in FORBIDDEN:
                break
    raise OSError(
        f"cannot write prepared data to {folder} ({failure.strerror or failure}); free it or make it writable, "
        "or set the environment variable LIGHTNING_XT_DATA to a folder that is"
    ) from failure


def write_whole(path: Path, chunks: Iterable[bytes]) -> None:
    """Writes a file beside its destination and moves it there in one step, once it is safe on the disk."""
    part = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        with replacing(path, part) as file:
            for chunk in chunks:
                file.write(chunk)
    finally:
        if isinstance(chunks, Generator):
            # What it has open, or drawn on the screen, must not wait until the error is forgotten.
            chunks.close()


def _written_once(path: Path, chunks: Callable[[], Iterable[bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    with FileLock(lock):
        try:
            # Another process may have written it while this one waited.
            if not path.is_file():
                _remove_abandoned(path)
                write_whole(path, chunks())
        finally:
            # Who waits for the removed lock finds the file, or at worst writes it a second time.
            lock.unlink(missing_ok=True)
    return path


def _remove_abandoned(path: Path) -> None:
    """Removes what writers of this file left that were killed, where that is allowed."""
    for part in path.parent.glob(f".{path.name}.*.part"):
        # Another process may do the same, and another user's may not be asked.
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > ABANDONED or _is_dead(part, path):
                part.unlink()


def _is_dead(part: Path, path: Path) -> bool:
    """Whether the writer of a part was a process of this host and is no more; those of others cannot be asked."""
    process = part.name.removeprefix(f".{path.name}.{socket.gethostname()}.").partition(".")[0]
    if not process.isdecimal():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    return False
