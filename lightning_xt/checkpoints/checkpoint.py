"""Reading checkpoint files, and saying in one sentence why one cannot be read. Needs no Lightning."""

import re
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from lightning_xt.checkpoints.migrations import OWN, migrate

ARCHIVE = b"PK\x03\x04"
"""What every file of torch.save begins with: it is a zip archive."""
DAMAGED = "its contents are damaged; give another checkpoint, or copy it again"


def read_checkpoint(path: str | Path, *, mapped: bool = True, map_location: Any = "cpu") -> dict[str, Any]:
    """What a checkpoint file holds, in today's format whichever version wrote it.

    Args:
        path: a file of torch.save.
        mapped: whether tensors stay in the file until they are used, which then must not be changed in place.
        map_location: where tensors are put, as for torch.load.

    Raises:
        ValueError: it cannot be read, is no checkpoint, or a later version wrote it; the message says which and why.
    """
    file = Path(path)
    _check_archive(file)
    try:
        content = torch.load(file, weights_only=True, mmap=mapped, map_location=map_location)
    except UnpicklingError as error:
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused is None or _is_damaged(file):
            raise _unreadable(file, DAMAGED) from error
        raise _unreadable(
            file,
            f"it holds {refused[1]} beside tensors and plain values, and loading that could run any code; give a "
            "checkpoint that loads with weights_only=True, as ours do",
        ) from error
    except Exception as error:
        # A damaged file may fail in any way.
        raise _unreadable(file, DAMAGED) from error
    if not isinstance(content, dict):
        raise _unreadable(file, f"it holds a {type(content).__name__}, not a mapping; give a .ckpt file of a run")
    content = dict(content)
    if not isinstance(content.get(OWN) or {}, dict):
        raise _unreadable(
            file,
            f"what it holds of its run is a {type(content[OWN]).__name__}, not a mapping; give a .ckpt file that fit "
            "has saved",
        )
    migrate(content)
    return content


def check_contents(path: str | Path) -> None:
    """Reads a checkpoint to its end and compares checksums, which loading alone does not.

    Raises:
        ValueError: the file is none, or not as it was written.
    """
    file = Path(path)
    _check_archive(file)
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except (OSError, zipfile.BadZipFile) as error:
        raise _unreadable(file, DAMAGED) from error
    if damaged is not None:
        raise _unreadable(file, DAMAGED)


def _check_archive(file: Path) -> None:
    """Raises a ValueError for a file that torch.save did not write, or not whole."""
    try:
        with file.open("rb") as opened:
            start = opened.read(len(ARCHIVE))
        if not start:
            raise _unreadable(file, "it is empty, because what wrote it was stopped; give another checkpoint")
        if not ARCHIVE.startswith(start):
            raise _unreadable(file, "it is not in the format of torch.save; give a .ckpt file of a run")
        with zipfile.ZipFile(file) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
    except OSError as error:
        raise _unreadable(file, f"{error.strerror or error}; give a .ckpt file that can be opened") from error
    except zipfile.BadZipFile as error:
        raise _unreadable(
            file, "its end is missing, because it was cut off or is still written; give another checkpoint"
        ) from error
    if "data.pkl" not in names:
        raise _unreadable(file, "it is a zip archive of other files; give a .ckpt file of a run")
    if "constants.pkl" in names:
        raise _unreadable(file, "it is a TorchScript program; give a .ckpt file of a run")


def _is_damaged(file: Path) -> bool:
    """Whether the part that names the classes is not as it was written."""
    with zipfile.ZipFile(file) as archive:
        try:
            for name in archive.namelist():
                if name.endswith("/data.pkl"):
                    archive.read(name)
        except zipfile.BadZipFile:
            return True
    return False


def _unreadable(file: Path, reason: str) -> ValueError:
    return ValueError(f"{file} cannot be read as a checkpoint: {reason}")
