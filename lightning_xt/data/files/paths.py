"""Files named by an option: a file, a folder or a pattern."""

import glob
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from lightning_xt.data.files.data_folder import data_folder, prepared_folders
from lightning_xt.system.files import expand_home


def require_path(path: str | None) -> str:
    """Return the value of `--data.path`; ValueError if it is missing."""
    if path is None:
        raise ValueError("--data.path is required; give it in a config or on the command line")
    return path


def find_files(option: str, path: str) -> list[Path]:
    """Find the files of an option, sorted: a file, a folder or a pattern, looked up here, then in the data folder.

    Brackets in the name of a folder that exists do not belong to a pattern.

    Files that this package prepared in the data folder are omitted from folders and patterns. Linked folders are
    followed, each once.

    Raises:
        FileNotFoundError: nothing exists at the path, no file matches, the folder is empty, or a link is broken.
        ValueError: the path is neither a file nor a folder, is not UTF-8, or cannot be read.
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
            # One of our own messages.
            raise
        raise ValueError(
            f"{option} {path}: cannot read {error.filename} ({error.strerror}); make it readable or omit it"
        ) from error


def _find(option: str, path: str) -> list[Path]:
    if not path:
        raise FileNotFoundError(f"{option} is empty; name a file, a folder or a pattern")
    root = expand_home(path, f"{option} {path}")
    if not root.is_absolute() and not _exists(root) and _exists(data_folder() / root):
        root = data_folder() / root
    if root.is_file():
        return [root]
    if root.is_dir():
        files = _keep_files(f"{option} {path}", _list_folder(root))
        if not files:
            raise FileNotFoundError(
                f"{option} {path}: the folder has no files (those with a leading dot do not count); put text "
                "files there or name another folder"
            )
        return files
    if root.exists():
        raise ValueError(f"{option} {path} is neither a regular file nor a folder; save the text in a file first")
    matches = _match_pattern(root) if glob.has_magic(path) else [root]
    files = _keep_files(f"{option} {path}", matches)
    if files:
        return files
    if not glob.has_magic(path):
        raise FileNotFoundError(
            f"{option} {path}: no such file or folder, here or in the data folder {data_folder()}; check the path"
        )
    raise FileNotFoundError(
        f"{option} {path}: no file matches this pattern; check it, and quote it so that the shell passes it on"
    )


def _exists(root: Path) -> bool:
    return root.exists() or (glob.has_magic(str(root)) and bool(_expand_pattern(root)))


def _expand_pattern(pattern: Path) -> set[Path]:
    """Expand a pattern. Folders at its beginning that exist are literal; so are all brackets if nothing matches."""
    parts = pattern.parts
    known = next((n for n in range(len(parts), 0, -1) if Path(*parts[:n]).exists()), 0)
    folder, rest = glob.escape(str(Path(*parts[:known]))), parts[known:]
    for each in (rest, [part.replace("[", "[[]") for part in rest]):
        if found := glob.glob(os.path.join(folder, *each), recursive=True):
            return {Path(match) for match in found}
    return set()


def _match_pattern(pattern: Path) -> list[Path]:
    """Match a pattern; omit prepared files, and repeat no file that several links reach."""
    matches = _expand_pattern(pattern)
    found: dict[tuple[str, str], Path] = {}
    prepared, real = _resolve_prepared(), cache(os.path.realpath)
    # Shortest path first; `**` follows a link to a parent folder many times.
    for match in sorted(matches, key=lambda match: (len(match.parts), match)):
        if (folder := real(match.parent)) not in prepared:
            found.setdefault((folder, match.name), match)
    return list(found.values())


def _list_folder(root: Path) -> list[Path]:
    """List a folder and its subfolders; omit hidden and prepared files."""
    found: list[Path] = []
    folders, seen = [root], _resolve_prepared()
    # The list grows during the loop. A link may lead to a parent folder, or to a folder twice.
    for folder in folders:
        if (real := os.path.realpath(folder)) in seen:
            continue
        seen.add(real)
        for name in sorted(os.listdir(folder)):
            if not name.startswith("."):
                path = folder / name
                (folders if path.is_dir() else found).append(path)
    return found


def _resolve_prepared() -> set[str]:
    return {os.path.realpath(folder) for folder in prepared_folders()}


def _keep_files(place: str, found: Iterable[Path]) -> list[Path]:
    """Return the regular files of the paths, sorted."""
    files = []
    for path in found:
        if path.is_file():
            files.append(path)
        elif path.is_symlink() and not path.exists():
            raise FileNotFoundError(f"{place}: the link {path} is broken; fix it or remove it")
    return sorted(files, key=Path.as_posix)
