"""Which files an option means."""

import glob
import os
from pathlib import Path

from lightning_xt.data.cache import data_folder


def find_files(option: str, path: str) -> list[Path]:
    """The files that the value of an option stands for, sorted; what is not here is looked for in the data folder.

    Args:
        option: the option as typed, such as `--data.path`.
        path: a file, a folder or a pattern.

    Raises:
        FileNotFoundError: nothing is there, no file matches, or the folder holds none.
        ValueError: it is neither a file nor a folder.
    """
    if not path:
        raise FileNotFoundError(f"{option} is empty; name a file, a folder or a pattern")
    root = Path(path).expanduser()
    if not root.is_absolute() and not _found(root) and _found(data_folder() / root):
        root = data_folder() / root
    if root.is_file():
        return [root]
    if root.is_dir():
        files = _files_below(root)
        if not files:
            raise FileNotFoundError(
                f"{option} {path}: the folder holds no files (those with a leading dot do not count); put text "
                "files there or name another folder"
            )
        return files
    if root.exists():
        raise ValueError(f"{option} {path} is neither a regular file nor a folder; save the text in a file first")
    if not glob.has_magic(path):
        raise FileNotFoundError(
            f"{option} {path}: there is no such file or folder, here or in the data folder {data_folder()}; check the "
            "path"
        )
    matches = {Path(match) for match in glob.glob(str(root), recursive=True)}
    files = sorted((match for match in matches if match.is_file()), key=Path.as_posix)
    if not files:
        raise FileNotFoundError(
            f"{option} {path}: no file matches this pattern; check it, and quote it so that the shell passes it on"
        )
    return files


def _found(root: Path) -> bool:
    return root.exists() or (glob.has_magic(str(root)) and bool(glob.glob(str(root), recursive=True)))


def _files_below(root: Path) -> list[Path]:
    """Every file in a folder and its subfolders that is not hidden."""
    found = []
    for folder, subfolders, names in os.walk(root):
        # In place: this is how `os.walk` is told where not to go.
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        found += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted((path for path in found if path.is_file()), key=Path.as_posix)
