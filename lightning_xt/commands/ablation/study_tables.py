"""Table of an ablation as Markdown, CSV and JSON."""

import csv
import io
from collections.abc import Mapping
from typing import Any

from lightning_xt.commands.ablation.budget import KINDS
from lightning_xt.commands.ablation.mean_tests import SIGNIFICANT, Mean
from lightning_xt.commands.ablation.study_probes import ProbeCell
from lightning_xt.commands.ablation.study_results import RATIOS, StudyResults, StudyRow
from lightning_xt.system.json_text import to_json

UNITS = {"val/bits_per_byte": "bits per byte", "val/loss": "nats a token"}
UNKNOWN = "-"


def describe_study(results: StudyResults, rows: list[StudyRow]) -> list[str]:
    """Describe in sentences how the table was made, and how to read it."""
    plan, base = results.plan, rows[0]
    tested = sum(row.p is not None for row in rows)
    names = " and ".join(each.path for each in plan.base)
    options = f" {' '.join(plan.options)}" if plan.options else ""
    lines = [
        f"Base: {names}{options}. Budget of each run: {plan.budget.text}, {base.steps or 0:,} steps of the base, with "
        "the schedule fitted to the steps.",
        f"Quality is {results.metric} of the whole validation split after the last step, the mean of {plan.seeds} "
        f"{'seeds' if plan.seeds > 1 else 'seed'} with its 95 % interval; lower is better. A seed is that of the "
        "weights and of the order of the data.",
    ]
    if base.mean is not None and base.mean.deviation is not None:
        lines.append(
            f"Noise: {base.mean.repeats} runs of the base, which differ in the seed only, have a standard deviation of "
            f"{base.mean.deviation:.4f}."
        )
    if plan.seeds < 2:
        lines.append("With one seed no interval is claimed, and no row is said to be better or worse.")
    elif tested:
        lines.append(
            f"p is Welch's, of no difference from the base, corrected for {tested} rows by Holm's method; a row with "
            "0.05 or more is within the noise."
        )
    lines += _describe_costs(results, base)
    if plan.rates:
        rates = ", ".join(f"{rate:g}" for rate in plan.rates)
        lines.append(
            f"The learning rate of each row is the best of {rates}, by one run of each at the whole budget on another "
            "seed; one marked * is at an end of these."
        )
    else:
        lines.append("The learning rate is that of the base, or of the overlay if it sets one; none was tuned.")
    if plan.probes:
        lines.append(
            f"Probes: {plan.probe_metric} of the models of {', '.join(each.path for each in plan.probes)}, the mean of "
            f"the seeds. + is better than the base and - worse, where Welch's p is below {SIGNIFICANT} after Holm's "
            "correction for the rows."
        )
    versions = ", ".join(f"{name} {version}" for name, version in plan.versions.items())
    return [*lines, f"{versions}; threads of a run: {plan.threads}."]


def _describe_costs(results: StudyResults, base: StudyRow) -> list[str]:
    others = [kind for kind in ("seconds", "bytes") if kind != results.plan.budget.kind]
    slope = results.find_slope()
    lines = []
    if slope is not None:
        lines.append(
            f"By {' and by '.join(others)}: an estimate for as many as the base is trained for. The metric is taken to "
            "fall with the logarithm of the steps as the base's does between half of its steps and all "
            f"({slope:.4f} when it grows by 1). To measure, give --budget {others[0]}=..."
        )
    ratios = base.costs.get("time_ratios")
    if ratios:
        lines.append(
            "Time, parameters, memory and FLOPs of a step are multiples of the base's. Time was measured in turns with "
            f"the base, apart from the runs; the base against itself gave {min(ratios):.2f} to {max(ratios):.2f}. "
            "Memory is that of weights, optimizer and the most that a step allocates."
        )
    return lines


def list_columns(results: StudyResults) -> list[str]:
    """List the heads of the table's columns."""
    unit = UNITS[results.metric]
    kinds = [f"by {kind}" for kind in ("seconds", "bytes") if _has_column(results, kind)]
    tuned = ["learning rate"] if results.plan.rates else []
    combined = ["sum of parts"] if any(each.parts for each in results.plan.variants) else []
    probes = [f"on {each.name}" for each in results.plan.probes]
    return ["variant", unit, "against base", *combined, "p", "verdict", *kinds, *RATIOS, *tuned, *probes]


def _has_column(results: StudyResults, kind: str) -> bool:
    """Return whether a kind of budget has a separate column; bytes pay for equal steps where batches are equal."""
    if kind == results.plan.budget.kind:
        return False
    return kind == "seconds" or results.plan.budget.kind in KINDS.keys() - {"bytes", "steps"}


def format_row(row: StudyRow, results: StudyResults) -> list[str]:
    """Return the texts of a row's columns."""
    difference = row.difference
    found = {
        "variant": row.name,
        UNITS[results.metric]: _format_mean(row.mean),
        "against base": UNKNOWN if difference is None else f"{difference.value:+.4f} ± {difference.margin:.4f}",
        "sum of parts": UNKNOWN if row.parts_sum is None else f"{row.parts_sum:+.4f}",
        "p": UNKNOWN if row.p is None else _format_p(row.p),
        "verdict": row.verdict,
        "by seconds": _format_number(row.by_seconds, ".4f"),
        "by bytes": _format_number(row.by_bytes, ".4f"),
        "learning rate": UNKNOWN if row.rate is None else f"{row.rate:g}{'*' if row.at_end else ''}",
        **{name: _format_number(row.ratios.get(name), ".2f") for name in RATIOS},
    } | {f"on {name}": str(cell) for name, cell in row.probes.items()}
    return [found[name] for name in list_columns(results)]


def format_markdown(results: StudyResults, rows: list[StudyRow]) -> str:
    """Return the table as Markdown, with how it was made above it."""
    head = list_columns(results)
    lines = ["# Ablation", "", *(f"- {line}" for line in describe_study(results, rows)), ""]
    lines += [f"| {' | '.join(head)} |", f"|{'|'.join(['---'] * len(head))}|"]
    lines += [f"| {' | '.join(text.replace('|', '/') for text in format_row(row, results))} |" for row in rows]
    return "\n".join(lines) + "\n"


def format_csv(results: StudyResults, rows: list[StudyRow]) -> str:
    """Return the rows as CSV, with numbers as they are."""
    facts = [_flatten(collect_row(row)) for row in rows]
    return _write_csv(list(facts[0]), facts)


def format_runs(results: StudyResults) -> str:
    """Return each finished run as CSV."""
    plan, found = results.plan, []
    for run in (*plan.list_tuning(), *plan.list_repeats(), *plan.list_probes()):
        if (result := results.folder.read_result(run.key)) is not None:
            identity = {"run": run.key, "variant": run.variant, "purpose": run.purpose, "seed": run.seed}
            identity["probe"] = run.probe or ""
            own_rate = None if run.probe is not None else results.choose_rate(run.variant)
            identity["learning rate"] = own_rate if run.rate is None else run.rate
            kept = {name: value for name, value in result.items() if name not in ("metrics", "output", "data")}
            found.append({**identity, **result.get("metrics", {}), **kept})
    return _write_csv(list(dict.fromkeys(name for each in found for name in each)), found)


def format_json(results: StudyResults, rows: list[StudyRow]) -> str:
    """Return everything about the table as JSON."""
    facts = {
        "metric": results.metric,
        "description": describe_study(results, rows),
        "slope": results.find_slope(),
        "rows": [collect_row(row) for row in rows],
    }
    return to_json(facts, indent=1) + "\n"


def collect_row(row: StudyRow) -> dict[str, Any]:
    """Return a row as plain values."""
    mean, difference = row.mean, row.difference
    return {
        "variant": row.name,
        "summary": row.summary,
        "verdict": row.verdict,
        "values": list(row.values),
        "mean": mean and mean.value,
        "margin": mean and mean.margin,
        "deviation": mean and mean.deviation,
        "difference": difference and difference.value,
        "difference_margin": difference and difference.margin,
        "p": difference and difference.p,
        "p_corrected": row.p,
        "by_seconds": row.by_seconds,
        "by_bytes": row.by_bytes,
        "parts_sum": row.parts_sum,
        "steps": row.steps,
        "learning_rate": row.rate,
        "learning_rate_at_end": row.at_end,
        **{f"{name}_ratio": row.ratios.get(name) for name in RATIOS},
        **{f"{name}_{part}": value for name, cell in row.probes.items() for part, value in _collect_cell(cell)},
        **{name: row.costs.get(name) for name in ("seconds_per_step", "parameters", "memory", "flops_per_step")},
    }


def _collect_cell(cell: ProbeCell) -> list[tuple[str, Any]]:
    mean = cell.mean
    return [("mean", mean and mean.value), ("margin", mean and mean.margin), ("p", cell.p), ("error", cell.error)]


def _flatten(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "values": " ".join(map(repr, row["values"]))}


def _write_csv(head: list[str], rows: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, head, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _format_mean(mean: Mean | None) -> str:
    if mean is None:
        return UNKNOWN
    return f"{mean.value:.4f}" if mean.margin is None else f"{mean.value:.4f} ± {mean.margin:.4f}"


def _format_number(value: float | None, form: str) -> str:
    return UNKNOWN if value is None else f"{value:{form}}"


def _format_p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"
