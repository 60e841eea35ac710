"""Files that are complete or absent."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


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
    part = path.with_name(f".{path.name}.part") if part is None else part
    try:
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
