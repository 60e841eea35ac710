"""Hashes of files, computed once."""

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from lightning_xt.data.files.data_folder import prepared_folders, write_whole
from lightning_xt.data.files.reading import explained, raw_blocks
from lightning_xt.data.loading.progress import with_progress

RECENT = 2.0  # seconds after a change in which another may leave no trace in a file's times


def content_hash(blocks: Iterable[bytes]) -> str:
    """SHA-256 of a stream, as hex digest."""
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """Hex digest of a file's bytes; see `file_hashes`."""
    return file_hashes([path], algorithm)[0]


def file_hashes(paths: Sequence[Path], algorithm: str = "sha256") -> list[str]:
    """Hex digest of each file's bytes, remembered in the data folder until one of these files changes.

    Args:
        paths: the files.
        algorithm: a name that `hashlib.new` knows.

    Raises:
        ValueError: a file cannot be read.
    """
    begin = time.time()
    before = traces(paths)
    memo = f"{algorithm}-{_short_hash([os.path.abspath(path) for path in paths])}.memo"
    state = _short_hash(before)
    if known := _recalled(memo, state, len(paths)):
        return known
    found: list[str] = []
    for _ in with_progress(_hashed(paths, algorithm, found), "reading", sum(trace[0] for trace in before)):
        pass
    last_change = max(max(trace[1:3]) for trace in before) / 1e9
    if begin - last_change > RECENT and traces(paths) == before:
        _remember(memo, " ".join([state, *found]))
    return found


def traces(paths: Iterable[Path]) -> list[tuple[int, ...]]:
    """What changes when a file does, of each file: size, times of the last change (ns) and number on the disk.

    Raises:
        ValueError: a file cannot be asked.
    """
    found: list[tuple[int, ...]] = []
    for path in paths:
        with explained(path):
            status = path.stat()
        found.append((status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino))
    return found


def _hashed(paths: Iterable[Path], algorithm: str, found: list[str]) -> Iterator[bytes]:
    """Passes on what the files hold, and adds their digests to `found`."""
    for path in paths:
        digest = hashlib.new(algorithm)
        for block in raw_blocks(path):
            digest.update(block)
            yield block
        found.append(digest.hexdigest())


def _short_hash(value: list[str] | list[tuple[int, ...]]) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:32]


def _recalled(memo: str, state: str, count: int) -> list[str] | None:
    """The digests that a memo holds for a state of its files."""
    for folder in prepared_folders():
        # Without a memo that can be read, the files are read again.
        with suppress(OSError, ValueError):
            known, *found = (folder / memo).read_text(encoding="ascii").split()
            if known == state and len(found) == count:
                return found
    return None


def _remember(memo: str, content: str) -> None:
    """Writes a memo where that is possible; without one, things take longer and nothing else."""
    for folder in prepared_folders():
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / memo, [content.encode("ascii")])
            return
