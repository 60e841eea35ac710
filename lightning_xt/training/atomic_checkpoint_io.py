import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.utilities import rank_zero_warn

from lightning_xt.checkpoints.checkpoint import Checkpoint
from lightning_xt.checkpoints.checkpoint_room import count_bytes, format_bytes
from lightning_xt.system.files import replace_file
from lightning_xt.system.messages import find_system_reason


class AtomicCheckpointIO(CheckpointIO):
    """Checkpoint plugin that replaces a file at once or not at all, and loads only plain values and tensors.

    Lightning writes into the folder of temporary files and moves the result, which is a copy if that is on another
    disk: a run that is killed meanwhile, or fills the disk, would lose the previous checkpoint too.
    """

    def __init__(self) -> None:
        self._warned = False
        self._opened: Checkpoint | None = None

    def reuse(self, checkpoint: Checkpoint) -> None:
        """Answer the next load of this file from the object that has it open."""
        self._opened = checkpoint

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write one file; if it cannot be written, raise an OSError and leave the previous file untouched."""
        file, size = Path(path), count_bytes(checkpoint)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(file.parent).free
            # A write that fails halfway takes as long as one that succeeds.
            if free >= size:
                with replace_file(file) as out:
                    torch.save(checkpoint, out)
        except (OSError, RuntimeError) as error:
            reason = find_system_reason(error)
            if reason is None:
                raise
            raise _unwritable(file, reason) from error
        if free < size:
            raise _unwritable(file, f"it takes {format_bytes(size)}, and there is room for {format_bytes(free)}")
        self._warn_about_next(file, size)

    def _warn_about_next(self, file: Path, size: int) -> None:
        """Warn, once, if a second file of this size will not fit."""
        free = shutil.disk_usage(file.parent).free
        if free < size and not self._warned:
            self._warned = True
            rank_zero_warn(
                f"{file} takes {format_bytes(size)} and there is room for {format_bytes(free)} now: the next "
                "checkpoint is written before this one is removed and will not fit; make room"
            )

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Load one file; the strategy moves its tensors where they belong."""
        checkpoint, self._opened = self._opened, None
        if checkpoint is None or checkpoint.path != Path(path):
            checkpoint = Checkpoint(path)
        # Optimizers change the tensors that they take over, and the file may be replaced while the run lasts.
        contents = deepcopy(checkpoint.contents)
        checkpoint.release()
        return contents

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def hand_on(checkpoint: Checkpoint | None, trainer: Trainer) -> None:
    """Let a Trainer load a checkpoint that is open already, if its checkpoints are ours."""
    if checkpoint is not None and isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO):
        trainer.strategy.checkpoint_io.reuse(checkpoint)


def _unwritable(file: Path, reason: str) -> OSError:
    left = f"{file} is unchanged; " if file.is_file() else ""
    again = "resume with --ckpt_path last" if left else "run the command again"
    return OSError(
        f"the checkpoint {file} cannot be written ({reason}); {left}make room, or make the folder writable, then "
        f"{again}"
    )
