"""The checkpoints of single steps that a run keeps beside its best and its last: `checkpoints/step-<n>.ckpt`."""

from pathlib import Path


def step_checkpoint(checkpoints: Path, step: int) -> Path:
    """Where the checkpoint of an optimizer step is kept."""
    return checkpoints / f"step-{step}.ckpt"


def step_checkpoints(checkpoints: Path) -> dict[int, Path]:
    """Those that are there, by step, in their order."""
    found = {path.stem.removeprefix("step-"): path for path in checkpoints.glob("step-*.ckpt")}
    return {int(step): found[step] for step in sorted((each for each in found if each.isdecimal()), key=int)}
