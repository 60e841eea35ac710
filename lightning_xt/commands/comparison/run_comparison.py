"""Comparison of runs by one metric."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from lightning_xt.checkpoints.flat_config import format_value
from lightning_xt.commands.comparison.config_differences import (
    SEEDS,
    find_differences,
    is_without_effect,
    make_labels,
)
from lightning_xt.commands.comparison.run_records import TOTALS, RunRecord
from lightning_xt.system.messages import UserError, explain_unknown

PREFERRED = ("val/bits_per_byte", "val/loss", "val/", "train/loss", "train/", "")
"""Beginnings of the metrics by which runs are compared by default, the first one first."""
HIGHER = ("accuracy", "match", "bleu", "chrf", "tokens_per_second", "mfu")
"""Ends of the names of metrics of which more is better."""


@dataclass(frozen=True)
class Entry:
    """Run, or several runs of one config, in a comparison.

    Args:
        runs: the runs.
        label: text that distinguishes the entry from the others.
        differs: options in which the entries differ, by dotted name.
    """

    runs: Sequence[RunRecord]
    label: str
    differs: Mapping[str, Any]


def compare_runs(runs: Sequence[RunRecord], *, group: bool) -> list[Entry]:
    """Find what distinguishes runs; with `group`, runs whose configs differ in their seeds only are one entry."""
    groups: dict[Any, list[RunRecord]] = {}
    for run in runs:
        groups.setdefault(_get_recipe(run) if group else run.name, []).append(run)
    members = list(groups.values())
    configs = [
        {name: value for name, value in each[0].config.items() if not (group and name in SEEDS)} for each in members
    ]
    differences = find_differences(configs)
    labels = make_labels(differences, [name_runs(each) for each in members])
    return [Entry(*each) for each in zip(members, labels, differences, strict=True)]


def name_runs(runs: Sequence[RunRecord]) -> str:
    """Return the name of a run, or of the first of several with their number."""
    return runs[0].name if len(runs) == 1 else f"{runs[0].name} and {len(runs) - 1} more"


def choose_metric(runs: Sequence[RunRecord], wanted: str | None) -> str:
    """Choose the metric that is compared; UserError if the runs do not share it, or any."""
    available = [{name for name in run.metrics if name not in TOTALS.values()} for run in runs]
    known = set().union(*available)
    if wanted is not None:
        if wanted not in known:
            raise UserError(f"compare: {explain_unknown('metric', wanted, known)}")
        for run, names in zip(runs, available, strict=True):
            if wanted not in names:
                raise UserError(f"compare: {run.name} has no {wanted}; it has {_list(names)}")
        return wanted
    shared = set.intersection(*available)
    for start in PREFERRED:
        if found := sorted(name for name in shared if name.startswith(start)):
            return found[0]
    has = "; ".join(f"{run.name} has {_list(names)}" for run, names in zip(runs, available, strict=True))
    raise UserError(f"compare: the runs share no metric: {has}")


def find_best(run: RunRecord, metric: str) -> tuple[int, float] | None:
    """Return the step and the value at which a metric is best; None if no value is finite."""
    sign = -1 if metric.endswith(HIGHER) else 1
    finite = [(sign * value, step) for step, value in run.metrics[metric].items() if math.isfinite(value)]
    best = min(finite, default=None)
    return None if best is None else (best[1], sign * best[0])


def find_last(run: RunRecord, metric: str) -> tuple[int, float]:
    """Return the step and the value of a metric at its last step."""
    step = max(run.metrics[metric])
    return step, run.metrics[metric][step]


def list_points(run: RunRecord, metric: str) -> list[dict[str, float]]:
    """Return the values of a metric in the order of steps, with the totals of the run at these steps."""
    totals = {kind: run.metrics.get(name, {}) for kind, name in TOTALS.items()}
    return [
        {"step": step, "value": value, **{kind: known[step] for kind, known in totals.items() if step in known}}
        for step, value in sorted(run.metrics[metric].items())
    ]


def average_points(runs: Sequence[RunRecord], metric: str) -> list[dict[str, float]]:
    """Average the points of runs at the steps that all have; `least` and `most` are the range of their values."""
    curves = [{point["step"]: point for point in list_points(run, metric)} for run in runs]
    found = []
    for step in sorted(set.intersection(*map(set, curves))):
        points = [curve[step] for curve in curves]
        shared = set.intersection(*map(set, points))
        values = [point["value"] for point in points]
        means = {name: fmean(point[name] for point in points) for name in shared}
        found.append({**means, "least": min(values), "most": max(values)})
    return found


def describe_gaps(entries: Sequence[Entry], metric: str) -> list[str]:
    """Describe the entries whose runs share no step, and so have no mean curve, a sentence each."""
    return [
        f"{' and '.join(run.name for run in entry.runs)} share no step with {metric}: the plot has no curve of them"
        for entry in entries
        if not average_points(entry.runs, metric)
    ]


def _get_recipe(run: RunRecord) -> Any:
    """Return what runs of one config share."""
    return tuple(
        (name, format_value(value))
        for name, value in sorted(run.config.items())
        if name not in SEEDS and not is_without_effect(name, run.config)
    )


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"
