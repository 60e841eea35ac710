"""Which files an option means."""

import glob
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from lightning_xt.data.files.data_folder import data_folder, prepared_folders


def named_path(path: str | None) -> str:
    """What `--data.path` was given.

    Raises:
        ValueError: nothing.
    """
    if path is None:
        raise ValueError("--data.path is required; give it in a config or on the command line")
    return path


def find_files(option: str, path: str) -> list[Path]:
    """The files that the value of an option stands for, sorted; what is not here is looked for in the data folder.

    What this package prepared there is no part of a folder, nor of what a pattern matches. Folders that links lead to
    count as any other, each once.

    Args:
        option: the option as typed, such as `--data.path`.
        path: a file, a folder or a pattern.

    Raises:
        FileNotFoundError: nothing is there, no file matches, the folder holds none, or a link leads nowhere.
        ValueError: it is neither a file nor a folder, is not UTF-8, or cannot be read.
    """
    try:
        path.encode("utf-8")
    except UnicodeEncodeError as error:
        shown = path.encode("utf-8", "backslashreplace").decode("utf-8")
        raise ValueError(f"{option}: the path {shown} is not UTF-8; rename the file") from error
    try:
        return _find(option, path)
    except OSError as error:
        if error.errno is None:
            # A sentence of ours.
            raise
        raise ValueError(
            f"{option} {path}: cannot read {error.filename} ({error.strerror}); make it readable or leave it out"
        ) from error


def _find(option: str, path: str) -> list[Path]:
    if not path:
        raise FileNotFoundError(f"{option} is empty; name a file, a folder or a pattern")
    root = Path(path).expanduser()
    if not root.is_absolute() and not _found(root) and _found(data_folder() / root):
        root = data_folder() / root
    if root.is_file():
        return [root]
    if root.is_dir():
        files = _files(f"{option} {path}", _below(root))
        if not files:
            raise FileNotFoundError(
                f"{option} {path}: the folder holds no files (those with a leading dot do not count); put text "
                "files there or name another folder"
            )
        return files
    if root.exists():
        raise ValueError(f"{option} {path} is neither a regular file nor a folder; save the text in a file first")
    matches = _matches(root) if glob.has_magic(path) else [root]
    files = _files(f"{option} {path}", matches)
    if files:
        return files
    if not glob.has_magic(path):
        raise FileNotFoundError(
            f"{option} {path}: there is no such file or folder, here or in the data folder {data_folder()}; check the "
            "path"
        )
    raise FileNotFoundError(
        f"{option} {path}: no file matches this pattern; check it, and quote it so that the shell passes it on"
    )


def _found(root: Path) -> bool:
    return root.exists() or (glob.has_magic(str(root)) and bool(glob.glob(str(root), recursive=True)))


def _matches(pattern: Path) -> list[Path]:
    """What a pattern matches that this package did not prepare, once however many links lead to its folder."""
    matches = {Path(match) for match in glob.glob(str(pattern), recursive=True)}
    found: dict[tuple[str, str], Path] = {}
    prepared, real = _prepared(), cache(os.path.realpath)
    # The shortest path first; `**` follows a link to a folder above many times over.
    for match in sorted(matches, key=lambda match: (len(match.parts), match)):
        if (folder := real(match.parent)) not in prepared:
            found.setdefault((folder, match.name), match)
    return list(found.values())


def _below(root: Path) -> list[Path]:
    """Everything but folders in a folder and its subfolders that is not hidden and was not prepared by this package."""
    found: list[Path] = []
    folders, seen = [root], _prepared()
    # The list grows on the way. A link may lead back to a folder above, or to one twice.
    for folder in folders:
        if (real := os.path.realpath(folder)) in seen:
            continue
        seen.add(real)
        for name in sorted(os.listdir(folder)):
            if not name.startswith("."):
                path = folder / name
                (folders if path.is_dir() else found).append(path)
    return found


def _prepared() -> set[str]:
    return {os.path.realpath(folder) for folder in prepared_folders()}


def _files(place: str, found: Iterable[Path]) -> list[Path]:
    """The regular files among what was found, sorted."""
    files = []
    for path in found:
        if path.is_file():
            files.append(path)
        elif path.is_symlink() and not path.exists():
            raise FileNotFoundError(f"{place}: the link {path} leads nowhere; mend it or leave it out")
    return sorted(files, key=Path.as_posix)
