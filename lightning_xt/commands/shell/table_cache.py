"""Table of all commands, options and classes, which is built once for an installation and then read from a file.

To build it takes as long as a start of `fit`. So another process does it, and meanwhile nothing or the table before is
used.
"""

import json
import os
import sys
import sysconfig
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning_xt
from lightning_xt.system.cache_folder import cache_folder

PACKAGE = Path(lightning_xt.__file__).parent
ABANDONED = 300
"""Seconds after which another process builds the table, if one has begun and not ended."""


def load() -> dict[str, Any] | None:
    """Return the table; None if there is none yet. If the package has changed, have another process build a new one."""
    table: dict[str, Any] | None = None
    with suppress(OSError, ValueError):
        table = json.loads(_find_file().read_bytes())
    if table is None or table.get("key") != compute_key():
        _start_refresh()
    return table


def refresh() -> None:
    """Build the table and write its file."""
    from lightning_xt.commands.shell.table import build_table
    from lightning_xt.system.files import replace_file
    from lightning_xt.system.json_text import to_json

    # A user who types goes first.
    with suppress(OSError, AttributeError):
        os.nice(10)
    file = _find_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        text = to_json({"key": compute_key(), **build_table()})
        with replace_file(file) as out:
            out.write(text.encode("utf-8"))
    finally:
        _find_mark().unlink(missing_ok=True)


def compute_key() -> list[Any]:
    """Return what the table depends on: the version, the files of the package, and what is installed next to it."""
    installed = 0.0
    with suppress(OSError):
        installed = os.stat(sysconfig.get_path("purelib")).st_mtime
    newest, number = 0.0, 0
    for entry in _walk(str(PACKAGE)):
        newest, number = max(newest, entry.stat().st_mtime), number + 1
    return [lightning_xt.__version__, number, newest, installed]


def _walk(folder: str) -> Iterator[os.DirEntry[str]]:
    """Yield the modules below a folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".py"):
                yield entry
            elif "." not in entry.name and entry.name != "__pycache__" and entry.is_dir():
                yield from _walk(entry.path)


def _find_file() -> Path:
    """Return the file of the table, another for each installation."""
    return cache_folder() / f"completion-{zlib.crc32(str(PACKAGE).encode()):08x}.json"


def _find_mark() -> Path:
    return _find_file().with_suffix(".building")


def _start_refresh() -> None:
    """Start a process that builds the table, unless one does already."""
    mark = _find_mark()
    with suppress(OSError):
        mark.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            if time.time() - mark.stat().st_mtime > ABANDONED:
                mark.unlink()
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
        import subprocess

        subprocess.Popen(
            [sys.executable, "-m", "lightning_xt", "completion", "bash", "--refresh"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
