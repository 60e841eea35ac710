"""Zip archives as streams: nothing is ever extracted to a path."""

import re
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

from lightning_xt.data.files.reading import ExpansionLimit, named_errors, read_rest

ARCHIVES = (".zip", ".gz", ".tgz", ".tar", ".bz2", ".xz", ".zst", ".7z", ".rar")
"""Endings of archives and compressed files."""
PACKED = (".gz", ".zip")
"""Endings of compressed files that are read."""


def read_entries(path: Path) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Yield the files of a zip archive, sorted by name, each with its content as a stream.

    Folders, hidden files (a leading dot in the name or in a parent folder's name) and macOS's additions (`__MACOSX`)
    are omitted. Read each stream before taking the next entry.

    Raises:
        ValueError: the archive cannot be read, is cut off or damaged, expands beyond the limit, or has an entry that
            is refused: one that points outside the archive's folder, a link, a device, an encrypted entry, another
            archive. All entries are checked before the first is yielded.
    """
    with named_errors(path), zipfile.ZipFile(path) as archive:
        limit = ExpansionLimit(path)
        infos = sorted(archive.infolist(), key=lambda info: info.filename)
        for info in infos:
            _require_inside(path, info)
        files = [info for info in infos if not (info.is_dir() or _is_hidden(info.filename))]
        for info in files:
            _require_readable(path, info)
        for info in files:
            yield info.filename, limit.check(_read_entry(path, archive, info))


def _read_entry(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    with named_errors(path), archive.open(info) as file:
        yield from read_rest(file)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _require_inside(path: Path, info: zipfile.ZipInfo) -> None:
    """Raise a ValueError for an entry that would be unpacked outside the archive's folder."""
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
            f"{path}: the entry {name!r} {problem}; get the archive from a source you trust, or unpack it yourself and "
            "name the folder"
        )


def _require_readable(path: Path, info: zipfile.ZipInfo) -> None:
    """Raise a ValueError for an entry that cannot be read as a stream."""
    problem = None
    if info.flag_bits & 1:
        problem = "is encrypted"
    elif info.filename.lower().endswith(ARCHIVES):
        problem = "is an archive itself"
    elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Python reads a few other methods, but cannot bound the memory they take.
        problem = "is compressed by another method than deflate"
    if problem:
        raise ValueError(
            f"{path}: the entry {info.filename!r} {problem}; unpack the archive yourself and name the folder"
        )
