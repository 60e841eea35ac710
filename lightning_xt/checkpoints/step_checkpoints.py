"""Checkpoints of single steps, which a run keeps besides its best and its last: `checkpoints/step-<n>.ckpt`."""

from pathlib import Path


def step_checkpoint(checkpoints: Path, step: int) -> Path:
    """Return the path for the checkpoint of an optimizer step."""
    return checkpoints / f"step-{step}.ckpt"


def step_checkpoints(checkpoints: Path) -> dict[int, Path]:
    """List the existing files by step, in order."""
    found = {path.stem.removeprefix("step-"): path for path in checkpoints.glob("step-*.ckpt")}
    return {int(step): found[step] for step in sorted((each for each in found if each.isdecimal()), key=int)}
