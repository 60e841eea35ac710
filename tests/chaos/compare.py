"""Differences between two runs, bit for bit, timings aside."""

import csv
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TIMED = {"speed/tokens_per_second", "speed/step_ms", "speed/data_wait", "speed/mfu", "speed/peak_memory_gb"} | {
    "train/seconds"
}
FORGOTTEN = {"current_score", "seconds"}
"""Values of a ModelCheckpoint that Lightning saves but does not restore, and the time of training."""

# TensorBoard reports that it hides the steps that a resumed run repeated.
logging.getLogger("tensorboard").setLevel(logging.ERROR)


class RunError(Exception):
    """Error: a run did not end as its plan says."""


def last_step(run: Path) -> int:
    """Return the last step in a run's metrics; -1 if there is none."""
    try:
        last = (run / "metrics.csv").read_bytes().splitlines(keepends=True)[-1]
    except (FileNotFoundError, IndexError):
        return -1
    step = last.split(b",")[0]
    return int(step) if last.endswith(b"\n") and step.isdigit() else -1


def find_differences(uninterrupted: Path, other: Path) -> Iterator[str]:
    """Yield a line for each difference between two runs."""
    for kind in ("last", "best"):
        name = f"checkpoints/{kind}.ckpt"
        yield from compare(load(uninterrupted / name), load(other / name), name)
    yield from compare(read_metrics(uninterrupted), read_metrics(other), "metrics.csv")
    curves = read_scalars(other)
    yield from compare(read_scalars(uninterrupted), curves, "TensorBoard")
    for name, points in curves.items():
        steps = [step for step, _ in points]
        # Lightning adds the epoch to whatever it logs, so twice to a step that is validated.
        if name != "epoch" and steps != sorted(set(steps)):
            yield f"TensorBoard/{name}: the steps do not increase: {steps}"
    yield from compare(*((run / "samples.txt").read_text() for run in (uninterrupted, other)), "samples.txt")


def compare(one: Any, other: Any, name: str) -> Iterator[str]:
    """Yield a line for each leaf in which two values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted((one.keys() | other.keys()) - FORGOTTEN, key=str):
            if key in one and key in other:
                yield from compare(one[key], other[key], f"{name}/{key}")
            else:
                yield f"{name}/{key}: only in the {'uninterrupted' if key in one else 'resumed'} run"
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from compare(left, right, f"{name}/{number}")
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if one.dtype != other.dtype or not torch.equal(one, other):
            yield f"{name}: tensors differ"
    elif type(one) is not type(other) or one != other:
        yield f"{name}: {str(one)[:200]} in the uninterrupted run, {str(other)[:200]} in the resumed one"


def load(checkpoint: Path) -> dict[str, Any]:
    """Load a checkpoint's content."""
    content: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    return content


def read_metrics(run: Path) -> dict[str, dict[str, str]]:
    """Read the values of `metrics.csv` as they are written, by step."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = {row["step"]: {name: value for name, value in row.items() if name not in TIMED} for row in rows}
    if len(table) != len(rows):
        raise RunError(f"{run}/metrics.csv has a step twice")
    return table


def read_scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Read the points of each curve that TensorBoard shows."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    names = [name for name in events.Tags()["scalars"] if name not in TIMED]
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in names}
