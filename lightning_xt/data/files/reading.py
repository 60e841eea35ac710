"""Files as streams of blocks, decompressed if necessary."""

import gzip
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lightning_xt.system.files import expand_home

BLOCK = 1 << 20  # bytes read at once

FREE_OUTPUT = 64 << 20  # bytes to which any compressed file may expand
MAX_EXPANSION = 200  # ratio of expanded to compressed size beyond FREE_OUTPUT

FORGED = (struct.error, NotImplementedError, UnicodeDecodeError)
"""Errors of Python's zipfile for malformed entries, besides BadZipFile."""


def read_blocks(path: Path) -> Iterator[bytes]:
    """Yield a file's content, a `.gz` file's decompressed; ValueError if it is unreadable, damaged or too large."""
    return _read_gzip(path) if path.suffix.lower() == ".gz" else read_raw_blocks(path)


def read_whole(option: str, file: str, wanted: str) -> bytes:
    """Read the whole file that an option names, decompressed if its name ends in .gz.

    Messages say the kind of file that is wanted.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file cannot be read.
    """
    path = expand_home(file, f"{option} {file}")
    try:
        found = path.is_file()
    except OSError as error:
        raise ValueError(f"{option} {file}: {error.strerror}; make it readable") from error
    if not found and path.exists() and not path.is_dir():
        raise ValueError(f"{option} {file} is not a regular file; save its content in one first")
    if not found:
        raise FileNotFoundError(f"{option} {file}: no such file; give {wanted}")
    try:
        return b"".join(read_blocks(path))
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


def read_raw_blocks(path: Path) -> Iterator[bytes]:
    """Yield the bytes of one file, unchanged; ValueError if it cannot be read."""
    with named_errors(path), open(path, "rb") as file:
        yield from read_rest(file)


def read_rest(file: IO[bytes] | gzip.GzipFile) -> Iterator[bytes]:
    """Yield the rest of an open file."""
    while block := file.read(BLOCK):
        yield block


class ExpansionLimit:
    """Limit on the expanded size of a compressed file, whose header may lie about it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.most = max(FREE_OUTPUT, MAX_EXPANSION * path.stat().st_size)
        self.size = 0

    def check(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield blocks while their total stays within the limit.

        Raises:
            ValueError: the total exceeds the limit.
        """
        for block in blocks:
            self.size += len(block)
            if self.size > self.most:
                raise ValueError(
                    f"{self.path} expands to more than {self.most:,} bytes, more than any text of its size does; if "
                    "you trust it, unpack it yourself and name the unpacked file"
                )
            yield block


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Turn errors of reading or unpacking a file into one ValueError that names it."""
    try:
        yield
    except EOFError as error:
        raise ValueError(f"{path} ends too early: the download or copy was cut off; get it again") from error
    except (gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, *FORGED) as error:
        kind = path.suffix.lower().removeprefix(".")
        raise ValueError(f"{path} is cut off, damaged or not a {kind} file ({error}); get it again") from error
    except OSError as error:
        raise ValueError(f"cannot read {path} ({error.strerror or error}); make it readable or omit it") from error


def _read_gzip(path: Path) -> Iterator[bytes]:
    with named_errors(path):
        if path.stat().st_size == 0:
            # Python's gzip accepts an empty file.
            raise EOFError
        with gzip.open(path, "rb") as file:
            yield from ExpansionLimit(path).check(read_rest(file))
