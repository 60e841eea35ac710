"""Zip archives as streams: nothing is ever extracted to a path."""

import re
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

from lightning_xt.data.files.reading import Expansion, explained, rest_of

ARCHIVES = (".zip", ".gz", ".tgz", ".tar", ".bz2", ".xz", ".zst", ".7z", ".rar")
"""Endings of files that hold others, or hold their text packed."""


def entries(path: Path) -> Iterator[tuple[str, Iterator[bytes]]]:
    """The files in a zip archive, sorted by name, each with its content as a stream.

    Folders, hidden files (a leading dot in the name, or in that of a folder on the way) and what macOS adds
    (`__MACOSX`) are left out. Read each stream before the next entry is taken.

    Raises:
        ValueError: the archive cannot be read, is cut off or damaged, expands beyond the limit, or has an entry that
            is refused: one that points outside the archive's folder, a link, a device, an encrypted one, another
            archive. All are looked at before the first is given.
    """
    with explained(path), zipfile.ZipFile(path) as archive:
        expansion = Expansion(path)
        infos = sorted(archive.infolist(), key=lambda info: info.filename)
        for info in infos:
            _require_inside(path, info)
        files = [info for info in infos if not (info.is_dir() or _is_left_out(info.filename))]
        for info in files:
            _require_readable(path, info)
        for info in files:
            yield info.filename, expansion.of(_entry_blocks(path, archive, info))


def _entry_blocks(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    with explained(path), archive.open(info) as file:
        yield from rest_of(file)


def _is_left_out(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _require_inside(path: Path, info: zipfile.ZipInfo) -> None:
    """Raises a ValueError for an entry that would land outside the folder where the archive is unpacked."""
    name = info.filename
    kind = stat.S_IFMT(info.external_attr >> 16)
    problem = None
    if not name or name.startswith("/") or re.match("[A-Za-z]:", name) or "\\" in name or ".." in name.split("/"):
        problem = "points outside the archive"
    elif kind == stat.S_IFLNK:
        problem = "is a link"
    elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        problem = "is a device"
    if problem:
        raise ValueError(
            f"{path}: the entry {name!r} {problem}; get the archive from a source you trust, or unpack it by hand and "
            "name the folder"
        )


def _require_readable(path: Path, info: zipfile.ZipInfo) -> None:
    """Raises a ValueError for an entry that cannot be read as it is."""
    problem = None
    if info.flag_bits & 1:
        problem = "is encrypted"
    elif info.filename.lower().endswith(ARCHIVES):
        problem = "is an archive itself"
    elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Python reads a few other methods, but cannot bound the memory they take.
        problem = "is packed by another method than deflate"
    if problem:
        raise ValueError(
            f"{path}: the entry {info.filename!r} {problem}; unpack the archive by hand and name the folder"
        )
