"""Records of a run in its files: its config, its metrics and its parameters."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from lightning_xt.checkpoints.flat_config import flatten_config
from lightning_xt.checkpoints.metrics_table import parse_metrics
from lightning_xt.checkpoints.parameter_count import count_parameters
from lightning_xt.checkpoints.runs import CHECKPOINTS, checkpoint_file, find_run, is_valid_name, list_runs
from lightning_xt.system.files import expand_home
from lightning_xt.system.messages import UserError

WAY_OUT = "give runs/NAME, runs/NAME/0, a folder of runs or a .ckpt file in a run"
TOTALS = {"tokens": "train/tokens", "bytes": "train/bytes", "seconds": "train/seconds"}
"""Metrics that count what a run has used, by what they count."""


@dataclass(frozen=True)
class RunRecord:
    """Run as its files record it.

    Args:
        folder: folder of the run.
        config: options by dotted name, those of the last fit.
        metrics: values of each metric by step.
        notes: messages about the files.
    """

    folder: Path
    config: Mapping[str, Any]
    metrics: Mapping[str, Mapping[int, float]]
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.folder.as_posix()

    @cached_property
    def parameters(self) -> int | None:
        """Parameters of its checkpoint; None if there is none."""
        files = (checkpoint_file(self.folder, kind) for kind in CHECKPOINTS)
        found = next((file for file in files if file.is_file()), None)
        return None if found is None else count_parameters(found)

    @property
    def steps(self) -> int:
        """Optimizer steps done."""
        return max(step for values in self.metrics.values() for step in values)

    def total(self, kind: str) -> float | None:
        """Return a total of the run (see `TOTALS`); None if the run does not count it."""
        found = max(self.metrics.get(TOTALS[kind], {}).values(), default=None)
        return int(found) if found is not None and found.is_integer() else found


def read_runs(names: list[str]) -> list[RunRecord]:
    """Read the runs of a command line, each once; UserError if a name is not a run or a run has no metrics."""
    folders = {folder.resolve(): folder for name in names for folder in find_runs(name)}
    return [read_run(folder) for folder in folders.values()]


def find_runs(name: str) -> Iterator[Path]:
    """Find the run of a name, or in a folder of names the newest run of each; UserError if there is none."""
    path = expand_home(name, f"compare: {name}")
    if not is_valid_name(path) or not path.exists():
        raise UserError(f"compare: {name} is not a run: there is no such folder or file; {WAY_OUT}")
    if path.is_file():
        if (run := find_run(path)) is None:
            raise UserError(f"compare: {name} is not a run: it is a file outside of one; {WAY_OUT}")
        yield run
    elif _has(path, "config.yaml"):
        yield path
    elif found := _find_newest(path):
        yield found
    elif several := [found for each in sorted(path.iterdir()) if each.is_dir() and (found := _find_newest(each))]:
        yield from several
    else:
        raise UserError(f"compare: {name} is not a run: it has no config.yaml, and no folder in it is a run; {WAY_OUT}")


def read_run(folder: Path) -> RunRecord:
    """Read a run; UserError if it has no metrics."""
    file = folder / "metrics.csv"
    try:
        table = parse_metrics(file.read_bytes() if file.is_file() else b"")
    except OSError as error:
        raise UserError(f"compare: {file} cannot be read ({error.strerror}); make it readable, or omit it") from error
    if table is None:
        raise UserError(f"compare: {file} is damaged: its first line does not name columns; omit this run")
    metrics: dict[str, dict[int, float]] = {}
    for step, values in table.rows:
        for name, value in zip(table.columns, values, strict=True):
            if value:
                metrics.setdefault(name, {})[step] = float(value)
    if not metrics:
        reason = "no metrics yet" if file.is_file() else "no metrics.csv"
        raise UserError(f"compare: {folder} has {reason}; train it, or omit it")
    notes = (f"{file} is damaged: {table.dropped} of its rows cannot be read",) if table.dropped else ()
    return RunRecord(folder, _read_config(folder), metrics, notes)


def _read_config(folder: Path) -> dict[str, Any]:
    """Read the options of the run's last fit by dotted name."""
    later = {file.name.split(".")[2]: file for file in folder.glob("config.fit.*.yaml")}
    numbers = [int(number) for number in later if number.isdecimal()]
    file = later[str(max(numbers))] if numbers else folder / "config.yaml"
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"compare: {file} cannot be read as a config; omit this run, or repair the file") from error
    return flatten_config(content) if isinstance(content, dict) else {}


def _find_newest(runs: Path) -> Path | None:
    """Return the newest run of a name that has metrics; None if there is none."""
    found = [folder for folder in list_runs(runs) if _has(folder, "config.yaml") and _has(folder, "metrics.csv")]
    return found[-1] if found else None


def _has(folder: Path, name: str) -> bool:
    return (folder / name).is_file()
