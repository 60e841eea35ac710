"""Hashes of files, computed once and cached."""

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from lightning_xt.data.files.data_folder import prepared_folders, write_atomically
from lightning_xt.data.files.reading import named_errors, read_raw_blocks
from lightning_xt.data.loading.progress import with_progress

RECENT = 2.0  # seconds after a change in which a second change may not show in a file's times


def hash_content(blocks: Iterable[bytes]) -> str:
    """Return the SHA-256 of a stream, as a hex digest."""
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def hash_file(path: Path, algorithm: str = "sha256") -> str:
    """Return the hex digest of a file; see `hash_files`."""
    return hash_files([path], algorithm)[0]


def hash_files(paths: Sequence[Path], algorithm: str = "sha256") -> list[str]:
    """Return the hex digest of each file, cached in the data folder until one of the files changes.

    The algorithm is a name for `hashlib.new`. ValueError if a file cannot be read.
    """
    begin = time.time()
    before = stat_files(paths)
    memo = f"{algorithm}-{_short_hash([os.path.abspath(path) for path in paths])}.memo"
    state = _short_hash(before)
    if known := _read_memo(memo, state, len(paths)):
        return known
    found: list[str] = []
    for _ in with_progress(_hash_blocks(paths, algorithm, found), "reading", sum(stat[0] for stat in before)):
        pass
    last_change = max(max(stat[1:3]) for stat in before) / 1e9
    if begin - last_change > RECENT and stat_files(paths) == before:
        _write_memo(memo, " ".join([state, *found]))
    return found


def stat_files(paths: Iterable[Path]) -> list[tuple[int, ...]]:
    """Return size, times of change (ns) and inode of each file, which show a change; ValueError if unreadable."""
    found: list[tuple[int, ...]] = []
    for path in paths:
        with named_errors(path):
            status = path.stat()
        found.append((status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino))
    return found


def require_unchanged(paths: Iterable[Path], before: list[tuple[int, ...]], what: str) -> None:
    """Raise a ValueError if files have changed since `stat_files` returned `before`; it names them by `what`."""
    if stat_files(paths) != before:
        raise ValueError(f"{what} changed during reading; start again when it is complete")


def _hash_blocks(paths: Iterable[Path], algorithm: str, found: list[str]) -> Iterator[bytes]:
    """Yield the blocks of the files, and append their digests to `found`."""
    for path in paths:
        digest = hashlib.new(algorithm)
        for block in read_raw_blocks(path):
            digest.update(block)
            yield block
        found.append(digest.hexdigest())


def _short_hash(value: list[str] | list[tuple[int, ...]]) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:32]


def _read_memo(memo: str, state: str, count: int) -> list[str] | None:
    """Return the cached digests of the files in this state; None if there are none."""
    for folder in prepared_folders():
        # Without a readable memo, the files are hashed again.
        with suppress(OSError, ValueError):
            known, *found = (folder / memo).read_text(encoding="ascii").split()
            if known == state and len(found) == count:
                return found
    return None


def _write_memo(memo: str, content: str) -> None:
    """Write a memo to the first writable folder; without one, hashing is repeated."""
    for folder in prepared_folders():
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / memo, [content.encode("ascii")])
            return
