"""Plot of an ablation: gain against cost."""

from collections.abc import Sequence
from typing import Any

from lightning_xt.commands.ablation.study_results import StudyResults
from lightning_xt.commands.ablation.study_rows import NOISE, StudyRow
from lightning_xt.commands.ablation.study_tables import UNITS
from lightning_xt.system.messages import make_visible

COLORS = {"better": "tab:green", "likely better": "yellowgreen", "worse": "tab:red", "likely worse": "tab:orange"}
MOST_BANDS = 12
"""Largest gain or loss on a linear axis, in widths of the noise."""
LABELLED = 30
"""Most rows with a name: those that differ from the base the most."""


def draw_study(results: StudyResults, rows: Sequence[StudyRow]) -> Any:
    """Return a figure with a point for each row that has a result, its gain with the 95 % interval if it has one."""
    from matplotlib.figure import Figure

    base, unit = rows[0], UNITS[results.metric]
    figure = Figure(figsize=(10, 7), layout="constrained")
    axes = figure.subplots()
    shown = [row for row in rows[1:] if row.mean is not None and base.mean is not None and row.ratios.get("time")]
    for row in shown:
        margin, color = None if row.difference is None else row.difference.margin, COLORS.get(row.verdict, "0.6")
        place = (_find_time(row), _find_gain(row, base))
        axes.errorbar(*place, yerr=margin, fmt="o", color=color, markersize=4, linewidth=1)
    by_gain = sorted(shown, key=lambda row: (row.verdict == NOISE, -abs(_find_gain(row, base))))
    for row in by_gain[:LABELLED]:
        text = axes.annotate(
            make_visible(row.name),
            (_find_time(row), _find_gain(row, base)),
            xytext=(4, 3),
            textcoords="offset points",
            fontsize=7,
        )
        text.set_parse_math(False)
    if base.mean is not None and base.mean.deviation is not None:
        # A single run of the base lies within two standard deviations, mostly.
        band = 2 * base.mean.deviation
        axes.axhspan(-band, band, color="0.9", zorder=0, label="two standard deviations of the base's runs")
        axes.legend(frameon=False, loc="lower right")
        if band and max((abs(_find_gain(row, base)) for row in shown), default=0.0) > MOST_BANDS * band:
            # A row that is far worse would leave no room for the others.
            axes.set_yscale("symlog", linthresh=2 * band)
            axes.yaxis.set_major_formatter("{x:+.3g}")
    axes.axhline(0, color="0.5", linewidth=0.8)
    axes.axvline(1, color="0.5", linewidth=0.8)
    axes.set_xscale("log")
    for ticks in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        ticks("{x:.3g}")
    axes.set(xlabel="time of a step, in multiples of the base's", ylabel=f"gain on the base ({unit}; higher is better)")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _find_time(row: StudyRow) -> float:
    return row.ratios.get("time") or 1.0


def _find_gain(row: StudyRow, base: StudyRow) -> float:
    return 0.0 if row.mean is None or base.mean is None else base.mean.value - row.mean.value
