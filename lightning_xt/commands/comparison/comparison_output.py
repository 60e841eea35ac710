"""A comparison of runs as a table and as JSON."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from lightning_xt.commands.comparison.run_comparison import (
    Entry,
    average_points,
    find_best,
    find_last,
    list_points,
    name_runs,
)
from lightning_xt.commands.comparison.run_records import TOTALS, RunRecord

UNKNOWN = "-"


def format_table(entries: Sequence[Entry], metric: str) -> str:
    """Return a table with a line for each entry."""
    head = ["run", "parameters", "steps", *TOTALS, f"best {metric}", "last", "differs in"]
    rows = [head, *(_make_row(entry, metric) for entry in entries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    # Numbers stand at the right.
    ends = {0, len(head) - 1}
    lines = (
        "  ".join(
            text.ljust(width) if column in ends else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def collect_facts(entries: Sequence[Entry], metric: str) -> dict[str, Any]:
    """Return everything about a comparison as plain values."""
    return {"metric": metric, "entries": [_describe_entry(entry, metric) for entry in entries]}


def _make_row(entry: Entry, metric: str) -> list[str]:
    runs = entry.runs
    best = [find_best(run, metric) for run in runs]
    last = [find_last(run, metric)[1] for run in runs]
    at = f" at {best[0][0]:,}" if len(runs) == 1 and best[0] is not None else ""
    totals = [_format_range([run.total(kind) for run in runs], ",.0f") for kind in TOTALS]
    return [
        name_runs(runs),
        _format_range([runs[0].parameters], ","),
        _format_range([run.steps for run in runs], ","),
        *totals,
        _format_range([None if each is None else each[1] for each in best], ".4f") + at,
        _format_range(last, ".4f"),
        "" if entry.label == name_runs(runs) else entry.label.removeprefix(f"{name_runs(runs)}: "),
    ]


def _format_range(values: Sequence[float | None], form: str) -> str:
    """Format a value, or the mean of several with the least and the most."""
    known = [value for value in values if value is not None]
    if not known:
        return UNKNOWN
    if min(known) == max(known) or len(known) == 1:
        return f"{known[0]:{form}}"
    return f"{fmean(known):{form}} ({min(known):{form}} to {max(known):{form}})"


def _describe_entry(entry: Entry, metric: str) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "label": entry.label,
        "differs": dict(entry.differs),
        "runs": [_describe_run(run, metric) for run in entry.runs],
    }
    if len(entry.runs) > 1:
        for name, find in (("best", find_best), ("last", find_last)):
            values = [found[1] for run in entry.runs if (found := find(run, metric)) is not None]
            facts[name] = {"mean": fmean(values), "least": min(values), "most": max(values)} if values else None
        facts["points"] = average_points(entry.runs, metric)
    return facts


def _describe_run(run: RunRecord, metric: str) -> dict[str, Any]:
    best, last = find_best(run, metric), find_last(run, metric)
    return {
        "run": run.name,
        "parameters": run.parameters,
        "steps": run.steps,
        **{kind: run.total(kind) for kind in TOTALS},
        "best": None if best is None else {"step": best[0], "value": best[1]},
        "last": {"step": last[0], "value": last[1]},
        "notes": list(run.notes),
        "points": list_points(run, metric),
    }
