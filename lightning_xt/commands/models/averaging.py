"""Mean of the weights of several checkpoints."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_xt.checkpoints.checkpoint import Checkpoint
from lightning_xt.checkpoints.migrations import METADATA_KEY
from lightning_xt.checkpoints.runs import find_checkpoint, step_checkpoints
from lightning_xt.data.loading.progress import count_progress
from lightning_xt.system.files import replace_file
from lightning_xt.system.messages import UserError, find_system_reason


def write_average(run: str, last: int | None, output_file: str | None) -> int:
    """Average the weights of the `last` newest checkpoints of a run, None = all, and print what was written.

    Return the exit code. Without a file, the average goes to average.ckpt next to the checkpoints. UserError if there
    are too few, or the file cannot be written.
    """
    if last is not None and last < 1:
        raise UserError(f"--last is {last}; it must be at least 1 checkpoint")
    folder = find_checkpoint(run).parent
    files = _find_newest(folder, last)
    output = folder / "average.ckpt" if output_file is None else Path(output_file)
    _check_output(output)
    content = average(files)
    try:
        with replace_file(output) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        if (reason := find_system_reason(error)) is None:
            raise
        raise UserError(f"{output} cannot be written ({reason}); make room, or name another file: --output") from error
    print(f"averaged the weights of steps {', '.join(map(str, files))}")
    print(f"checkpoint={output}", flush=True)
    return 0


def average(files: dict[int, Path]) -> dict[str, Any]:
    """Return the newest checkpoint, with the mean of the weights of all; UserError if they are not of one model.

    Files are given by step, the newest last. Sums are of 64 bits. Values that are not floating-point numbers, such as a
    count, are the newest's. ValueError if a file cannot be read, or a later version wrote it.
    """
    contents = [_read(file) for file in count_progress(files.values(), "reading checkpoints", len(files))]
    newest = contents[-1]
    states = [content["state_dict"] for content in contents]
    _check_models(list(files.values()), states)
    made: dict[Any, Tensor] = {}
    weights = {}
    for name, value in states[-1].items():
        # Names that share a tensor still do.
        place = (value.untyped_storage().data_ptr(), value.storage_offset(), value.shape, value.stride())
        if place not in made or not value.numel():
            made[place] = _compute_mean([state[name] for state in states])
        weights[name] = made[place]
    # Metrics of the newest are not those of the mean.
    own = {name: value for name, value in newest[METADATA_KEY].items() if name != "metrics"}
    own["averaged"] = {"steps": list(files), "files": [file.name for file in files.values()]}
    return {**newest, "state_dict": weights, METADATA_KEY: own}


def _compute_mean(values: list[Tensor]) -> Tensor:
    if not values[-1].is_floating_point():
        return values[-1]
    total = torch.zeros(values[-1].shape, dtype=torch.float64)
    for value in values:
        total += value
    return (total / len(values)).to(values[-1].dtype)


def _find_newest(folder: Path, last: int | None) -> dict[int, Path]:
    """Find the checkpoints to average, by step."""
    files = step_checkpoints(folder)
    if not files:
        raise UserError(
            f"{folder} has no step-N.ckpt, of which there must be some to average; train with --keep_checkpoints 10"
        )
    if last is not None and len(files) < last:
        raise UserError(
            f"{folder} has only {len(files)} of the {last} step-N.ckpt that --last asks for; give --last {len(files)}, "
            f"or train with --keep_checkpoints {last}"
        )
    return dict(list(files.items())[-(last or len(files)) :])


def _check_output(output: Path) -> None:
    """Raise a UserError for a file that cannot be written, or not be used."""
    if output.suffix != ".ckpt":
        raise UserError(f"--output {output} is not the name of a checkpoint; end it in .ckpt")
    if output.is_dir():
        raise UserError(f"--output {output} is a folder; name a file in it")
    if not output.absolute().parent.is_dir():
        raise UserError(f"--output {output}: there is no folder {output.parent}; create it first")


def _read(file: Path) -> dict[str, Any]:
    checkpoint = Checkpoint(file)
    if not checkpoint.metadata:
        raise UserError(f"{file} was not written by lightning-xt; average the checkpoints that fit has saved")
    for name, value in checkpoint.weights.items():
        if not value.isfinite().all():
            raise UserError(
                f"{file} holds {name}, of which not all are numbers; remove the file, or average other ones"
            )
    return checkpoint.contents


def _check_models(files: list[Path], states: list[dict[str, Tensor]]) -> None:
    """Raise a UserError that names the first difference of a model to the newest."""
    newest = {name: tuple(value.shape) for name, value in states[-1].items()}
    for file, state in zip(files, states, strict=True):
        shapes = {name: tuple(value.shape) for name, value in state.items()}
        for name in sorted(newest.keys() | shapes.keys()):
            if newest.get(name) != shapes.get(name):
                here, there = shapes.get(name, "missing"), newest.get(name, "missing")
                raise UserError(
                    f"{file} and {files[-1].name} are not of one model: {name} is {here} in the former and {there} in "
                    "the latter; average the checkpoints of one run"
                )
