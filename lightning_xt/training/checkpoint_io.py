from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO

from lightning_xt.core.files import replacing
from lightning_xt.training.checkpoint_file import read_checkpoint


class WholeCheckpoints(CheckpointIO):
    """Saves checkpoints that are there whole or not at all, and loads nothing but plain values and tensors.

    Lightning's own writes into the folder for temporary files and moves the result, which is a copy where that is on
    another disk: a run that is killed meanwhile, or fills the disk, would have lost the checkpoint before it too.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes one file.

        Raises:
            OSError: it cannot be written. The file that was there before still is.
        """
        file = Path(path)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file) as out:
                torch.save(checkpoint, out)
        except (OSError, RuntimeError) as error:
            reason = _reason(error)
            if reason is None:
                raise
            left = f"{file} is as it was before; " if file.is_file() else ""
            again = "go on with --ckpt_path last" if left else "run the command again"
            raise OSError(
                f"the checkpoint {file} cannot be written ({reason}); {left}make room, or make the folder writable, "
                f"then {again}"
            ) from error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        # Not mapped: an optimizer changes the tensors that it takes over, and the file may be replaced meanwhile.
        return read_checkpoint(path, mapped=False, map_location=map_location or "cpu")

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def _reason(error: BaseException | None) -> str | None:
    """What the system says; torch tells of a failed write by an error of its own, on top of the system's."""
    while error is not None:
        if isinstance(error, OSError):
            return error.strerror or str(error)
        error = error.__cause__ or error.__context__
    return None
