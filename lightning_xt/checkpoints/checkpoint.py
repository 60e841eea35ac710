"""Checkpoint files: one object for each, opened and verified once. Needs no Lightning."""

import re
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from lightning_xt.checkpoints.checkpoint_schema import find_misfit
from lightning_xt.checkpoints.migrations import METADATA_KEY, migrate

ARCHIVE = b"PK\x03\x04"
"""First bytes of every file that torch.save writes: it is a zip archive."""
DAMAGED = "its contents are damaged; give another checkpoint, or copy it again"
WAY_OUT = "give a .ckpt file that fit has saved"


class Checkpoint:
    """A checkpoint file, opened and verified once and then handed on.

    Its checksums are compared before anything is read. Tensors stay in the file until they are used: copy them before
    you change them.

    Args:
        path: a file of torch.save.

    Raises:
        ValueError: the file is not a readable checkpoint; the message says which file and why.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._version = _file_version(self.path)
        self._contents: dict[str, Any] | None = _read(self.path)

    @property
    def contents(self) -> dict[str, Any]:
        """Everything in the file, in today's format."""
        if self._contents is None:
            # Before the file is read, so that it is never taken for a newer one.
            self._version = _file_version(self.path)
            self._contents = _read(self.path)
        return self._contents

    def refresh(self) -> bool:
        """Read the file again at the next use if it has been replaced since; return whether it has."""
        changed = self._version != _file_version(self.path)
        if changed:
            self.release()
        return changed

    def release(self) -> None:
        """Close the file. A file that stays open takes room on the disk even after a newer one has replaced it."""
        self._contents = None

    @property
    def step(self) -> int:
        """Optimizer steps behind the weights; ValueError if the file holds no checkpoint of a run."""
        step = self._entry("global_step")
        if not isinstance(step, int) or step < 0:
            raise ValueError(
                f"{self.path} is not a checkpoint of a run: its global_step is {step!r}, not a number of steps; "
                f"{WAY_OUT}"
            )
        return step

    @property
    def weights(self) -> dict[str, Tensor]:
        """Weights by name; ValueError if the file holds no checkpoint of a run."""
        weights = self._entry("state_dict")
        if not isinstance(weights, dict) or not all(isinstance(each, Tensor) for each in weights.values()):
            raise ValueError(
                f"{self.path} is not a checkpoint of a run: its state_dict holds more than weights; {WAY_OUT}"
            )
        return weights

    @property
    def metadata(self) -> dict[str, Any]:
        """Facts that lightning-xt saved about the run; empty if another program wrote the file."""
        return self.contents.get(METADATA_KEY) or {}

    @property
    def module_class(self) -> str | None:
        """Import path of the model's class, or its bare name; None if the file does not name it."""
        options = self.contents.get("hyper_parameters") or {}
        found: str | None = options.get("_class_path") or self.metadata.get("kind")
        return found

    @property
    def config(self) -> dict[str, Any]:
        """Options that the model was built with; empty if it was built from live objects."""
        options = self.contents.get("hyper_parameters") or {}
        return {name: value for name, value in options.items() if not name.startswith("_")}

    @property
    def tokenizers(self) -> dict[str, dict[str, Any]]:
        """Configs of the tokenizers that the model was trained with, by use."""
        return self.metadata.get("tokenizers") or {}

    def _entry(self, name: str) -> Any:
        if name not in self.contents:
            raise ValueError(f"{self.path} is not a checkpoint of a run: it has no {name}; {WAY_OUT}")
        return self.contents[name]


def _file_version(file: Path) -> tuple[int, ...]:
    """Return numbers that change when a file is replaced; none if there is no file."""
    try:
        stat = file.stat()
    except OSError:
        return ()
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size


def _read(file: Path) -> dict[str, Any]:
    """Verify a file, load it and bring it to today's format."""
    _verify(file)
    try:
        contents = torch.load(file, weights_only=True, mmap=True, map_location="cpu")
    except UnpicklingError as error:
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused is None:
            raise _unreadable(file, DAMAGED) from error
        raise _unreadable(
            file,
            f"it holds {refused[1]} besides tensors and plain values, and loading that could run any code; give a "
            "checkpoint that loads with weights_only=True, as those of lightning-xt do",
        ) from error
    except Exception as error:
        # Python's unpickler raises almost anything for bytes that were valid but make no sense.
        raise _unreadable(file, DAMAGED) from error
    if not isinstance(contents, dict):
        raise _unreadable(file, f"it holds a {type(contents).__name__}, not a mapping; give a .ckpt file of a run")
    contents = dict(contents)
    if not isinstance(contents.get(METADATA_KEY) or {}, dict):
        raise _unreadable(
            file, f"its {METADATA_KEY} is a {type(contents[METADATA_KEY]).__name__}, not a mapping; {WAY_OUT}"
        )
    if reason := find_misfit(contents):
        raise _unreadable(file, f"{reason}; {WAY_OUT}")
    migrate(contents)
    return contents


def _verify(file: Path) -> None:
    """Raise a ValueError unless torch.save wrote the file and every byte of it is as it was written."""
    try:
        with file.open("rb") as opened:
            start = opened.read(len(ARCHIVE))
            if not start:
                raise _unreadable(file, "it is empty, because its writer was stopped; give another checkpoint")
            if not ARCHIVE.startswith(start):
                raise _unreadable(file, "it is not in the format of torch.save; give a .ckpt file of a run")
            with zipfile.ZipFile(opened) as archive:
                names = {name.partition("/")[2] for name in archive.namelist()}
                if "data.pkl" not in names:
                    raise _unreadable(file, "it is a zip archive of other files; give a .ckpt file of a run")
                if "constants.pkl" in names:
                    raise _unreadable(file, "it is a TorchScript program; give a .ckpt file of a run")
                if _is_damaged(archive):
                    raise _unreadable(file, DAMAGED)
    except OSError as error:
        raise _unreadable(file, f"{error.strerror or error}; give a .ckpt file that can be opened") from error
    except zipfile.BadZipFile as error:
        raise _unreadable(
            file, "its end is missing, because it was cut off or is still being written; give another checkpoint"
        ) from error


def _is_damaged(archive: zipfile.ZipFile) -> bool:
    try:
        return archive.testzip() is not None
    except OSError:
        raise
    except Exception:
        # Damaged headers raise errors of many kinds.
        return True


def _unreadable(file: Path, reason: str) -> ValueError:
    return ValueError(f"{file} cannot be read as a checkpoint: {reason}")
