"""Hashes of files, computed once."""

import hashlib
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from lightning_xt.data.cache import prepared_folders, write_whole
from lightning_xt.data.progress import with_progress
from lightning_xt.data.reading import explained, raw_blocks

RECENT = 2.0  # seconds after a change in which another may leave no trace in a file's times


def content_hash(blocks: Iterable[bytes], algorithm: str = "sha256") -> str:
    """Hex digest of a stream."""
    digest = hashlib.new(algorithm)
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """Hex digest of a file's bytes, remembered in the data folder until the file changes.

    Args:
        path: the file.
        algorithm: a name that `hashlib.new` knows.

    Raises:
        ValueError: the file cannot be read.
    """
    begin = time.time()
    with explained(path):
        status = path.stat()
    address = os.path.abspath(path)
    memo = f"{algorithm}-{_short_hash(address)}.memo"
    state = _short_hash(address, *_traces(status))
    if known := _recalled(memo, state, 2 * hashlib.new(algorithm).digest_size):
        return known
    found = content_hash(with_progress(raw_blocks(path), f"hashing {path.name}", status.st_size), algorithm)
    with explained(path):
        unchanged = _traces(path.stat()) == _traces(status)
    if unchanged and begin - max(status.st_mtime, status.st_ctime) > RECENT:
        _remember(memo, f"{state} {found}")
    return found


def _traces(status: os.stat_result) -> tuple[int, ...]:
    """What a change of a file changes too."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _short_hash(*parts: str | int) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _recalled(memo: str, state: str, length: int) -> str | None:
    """The hash that a memo holds for a state of its file."""
    for folder in prepared_folders():
        # Without a memo, or with one that cannot be read, the file is hashed again.
        with suppress(OSError, ValueError):
            known_state, found = (folder / memo).read_text(encoding="ascii").split()
            if known_state == state and len(found) == length:
                return found
    return None


def _remember(memo: str, content: str) -> None:
    """Writes a memo where that is possible; without one, things take longer and nothing else."""
    for folder in prepared_folders():
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / memo, [content.encode("ascii")])
            return
