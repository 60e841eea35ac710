"""One file as a stream of bytes, a block at a time, unpacked where it is compressed."""

import gzip
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

BLOCK = 1 << 20  # bytes read at once

FREE_OUTPUT = 64 << 20  # bytes that any compressed file may expand to
MOST_EXPANSION = 200  # beyond that, how many times its own size it may expand to

FORGED = (struct.error, NotImplementedError, UnicodeDecodeError)
"""What Python's zipfile meets in an archive with impossible entries, beside what it calls bad."""


def blocks(path: Path) -> Iterator[bytes]:
    """The content of one file; what was compressed where the name ends in `.gz`.

    Raises:
        ValueError: the file cannot be read, is cut off or damaged, or expands beyond the limit.
    """
    return _gzip_blocks(path) if path.suffix.lower() == ".gz" else raw_blocks(path)


def whole(option: str, file: str, wanted: str) -> bytes:
    """All that is in a file, unpacked where its name ends in .gz.

    Args:
        option: that names it.
        file: what the option was given.
        wanted: what it should have been given.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read.
    """
    path = Path(file).expanduser()
    try:
        found = path.is_file()
    except OSError as error:
        raise ValueError(f"{option} {file}: {error.strerror}; make it readable") from error
    if not found:
        raise FileNotFoundError(f"{option} {file}: there is no such file; give {wanted}")
    try:
        return b"".join(blocks(path))
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


def raw_blocks(path: Path) -> Iterator[bytes]:
    """The bytes of one file as they lie on disk.

    Raises:
        ValueError: the file cannot be read.
    """
    with explained(path), open(path, "rb") as file:
        yield from rest_of(file)


def rest_of(file: IO[bytes] | gzip.GzipFile) -> Iterator[bytes]:
    """What is left of an open file."""
    while block := file.read(BLOCK):
        yield block


class Expansion:
    """Counts what comes out of a compressed file, whose own word on it may be a lie.

    Args:
        path: the compressed file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.most = max(FREE_OUTPUT, MOST_EXPANSION * path.stat().st_size)
        self.size = 0

    def of(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """Passes blocks on while all of them together stay within the limit.

        Raises:
            ValueError: they do not.
        """
        for block in blocks:
            self.size += len(block)
            if self.size > self.most:
                raise ValueError(
                    f"{self.path} expands to more than {self.most:,} bytes, which a text of its size does not; if you "
                    "trust it, unpack it by hand and name the unpacked file"
                )
            yield block


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns what goes wrong while a file is read or unpacked into one sentence that names it.

    Raises:
        ValueError: that sentence.
    """
    try:
        yield
    except EOFError as error:
        raise ValueError(f"{path} ends too early: the download or copy was cut off; get it again") from error
    except (gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, *FORGED) as error:
        kind = path.suffix.lower().removeprefix(".")
        raise ValueError(f"{path} is cut off, damaged or no {kind} file ({error}); get it again") from error
    except OSError as error:
        raise ValueError(f"cannot read {path} ({error.strerror or error}); make it readable or leave it out") from error


def _gzip_blocks(path: Path) -> Iterator[bytes]:
    with explained(path):
        if path.stat().st_size == 0:
            # To Python's gzip an empty file is a whole one.
            raise EOFError
        with gzip.open(path, "rb") as file:
            yield from Expansion(path).of(rest_of(file))
