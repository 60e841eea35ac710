"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replace_file(path: Path, part: Path | None = None) -> Iterator[BinaryIO]:
    """Opens a file that takes the place of `path` when the block is left, and not if it fails.

    It is written in the same folder, so that it is moved in one step, and reaches the disk before that: whoever looks,
    even after a crash, finds the file of before or the new one.

    Args:
        path: the file.
        part: what it is called until it is complete, in the same folder. None = one name, so that what a killed process
            left is written over; where several processes may write at once, each needs its own.
    """
    part = path.with_name(f".{path.name}.part") if part is None else part
    try:
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
