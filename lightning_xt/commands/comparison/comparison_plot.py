"""A comparison of runs as a plot."""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from lightning_xt.commands.comparison.run_comparison import Entry, average_points, list_points, name_runs
from lightning_xt.system.messages import make_visible

AXES = {"step": "optimizer steps", "bytes": "bytes trained on", "seconds": "seconds of training"}
STYLES = ("-", "--", ":", "-.")
COLORS = 10
"""Colours of matplotlib's cycle, after which the lines change their style."""
LONGEST_LABEL = 90
"""Characters of a label in the legend."""
CUT = "..."
MOST_POINTS = 1000
"""Points of a curve in a plot; of more, means of neighbours are drawn."""


def draw(entries: Sequence[Entry], metric: str) -> Any:
    """Return a figure with an axis for each quantity that a run counts."""
    from matplotlib.figure import Figure

    curves = [
        average_points(each.runs, metric) if len(each.runs) > 1 else list_points(each.runs[0], metric)
        for each in entries
    ]
    curves = [_thin(curve) for curve in curves]
    # Grouped runs that share no step have an empty curve.
    shown = [name for name in AXES if any(name in point for curve in curves for point in curve)] or ["step"]
    figure = Figure(figsize=(4 + 4 * len(shown), 4.5 + 0.2 * len(entries)), layout="constrained")
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for number, curve in enumerate(curves):
        for panel, name in zip(panels, shown, strict=True):
            _draw_curve(panel, [point for point in curve if name in point], name, number)
    for panel, name in zip(panels, shown, strict=True):
        panel.set_xlabel(AXES[name])
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(metric)
    labels = [_make_legend_label(entry) for entry in entries]
    # An underscore at the start would hide the label.
    labels = [f" {label}" if label.startswith("_") else label for label in labels]
    legend = figure.legend(panels[0].get_lines(), labels, loc="outside lower center", frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _make_legend_label(entry: Entry) -> str:
    """Return the name of an entry in the table and its differences, shortened to one line of the smallest plot."""
    name, label = name_runs(entry.runs), entry.label
    label = make_visible(label if label == name or label.startswith(f"{name}: ") else f"{name}: {label}")
    # The name stays whole: only it is sure to distinguish the curves.
    most = max(LONGEST_LABEL, len(make_visible(name)) + len(CUT))
    return label if len(label) <= most else f"{label[: most - len(CUT)].rstrip(', ')}{CUT}"


def _thin(curve: list[dict[str, float]]) -> list[dict[str, float]]:
    """Average neighbours of a curve with many points."""
    size = math.ceil(len(curve) / MOST_POINTS)
    parts = (curve[start : start + size] for start in range(0, len(curve), max(1, size)))
    return [
        {name: fmean(point[name] for point in part) for name in set.intersection(*map(set, part))} for part in parts
    ]


def _draw_curve(panel: Any, curve: Sequence[dict[str, float]], name: str, number: int) -> None:
    xs, ys = [point[name] for point in curve], [point["value"] for point in curve]
    color = f"C{number % COLORS}"
    style = STYLES[number // COLORS % len(STYLES)]
    # A single point draws nothing as a line.
    marker = "o" if sum(map(math.isfinite, ys)) < 2 else None
    panel.plot(xs, ys, color=color, linestyle=style, marker=marker)
    if curve and "least" in curve[0]:
        low, high = [point["least"] for point in curve], [point["most"] for point in curve]
        panel.fill_between(xs, low, high, color=color, alpha=0.2, linewidth=0)
