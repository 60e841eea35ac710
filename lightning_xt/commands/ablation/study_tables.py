"""Table of an ablation as Markdown, CSV and JSON."""

import csv
import io
from collections.abc import Mapping
from typing import Any

from lightning_xt.commands.ablation.mean_tests import SIGNIFICANT, Difference, Mean
from lightning_xt.commands.ablation.study_description import describe_study, has_column
from lightning_xt.commands.ablation.study_probes import ProbeCell
from lightning_xt.commands.ablation.study_results import StudyResults
from lightning_xt.commands.ablation.study_rows import RATIOS, StudyRow
from lightning_xt.system.json_text import to_json

UNITS = {"val/bits_per_byte": "bits per byte", "val/loss": "nats a token"}
UNKNOWN = "-"


def list_columns(results: StudyResults) -> list[str]:
    """List the heads of the table's columns."""
    unit = UNITS[results.metric]
    kinds = [f"by {kind}" for kind in ("seconds", "bytes") if has_column(results, kind)]
    tuned = ["learning rate"] if results.plan.rates else []
    combined = ["interaction"] if any(each.parts for each in results.plan.variants) else []
    probes = [f"on {each.name}" for each in results.plan.probes]
    return [
        "variant",
        unit,
        "against base",
        *combined,
        "p",
        "p, shared spread",
        "verdict",
        *kinds,
        *RATIOS,
        *tuned,
        *probes,
    ]


def format_row(row: StudyRow, results: StudyResults) -> list[str]:
    """Return the texts of a row's columns."""
    found = {
        "variant": row.name,
        UNITS[results.metric]: _format_mean(row.mean),
        "against base": _format_difference(row.difference),
        "interaction": _format_difference(row.interaction) + _mark(row.p_interaction),
        "p": UNKNOWN if row.p is None else _format_p(row.p),
        "p, shared spread": UNKNOWN if row.p_shared is None else _format_p(row.p_shared),
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
            # A failed run of --tune keeps none.
            identity["learning rate"] = result.get("rate", run.rate)
            kept = {name: value for name, value in result.items() if name not in ("metrics", "output", "data", "rate")}
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
    mean, difference, interaction = row.mean, row.difference, row.interaction
    return {
        "variant": row.name,
        "summary": row.summary,
        "verdict": row.verdict,
        "values": list(row.values),
        "seeds": list(row.seeds),
        "mean": mean and mean.value,
        "margin": mean and mean.margin,
        "deviation": mean and mean.deviation,
        "difference": difference and difference.value,
        "difference_margin": difference and difference.margin,
        "p": difference and difference.p,
        "p_corrected": row.p,
        "p_shared_corrected": row.p_shared,
        "by_seconds": row.by_seconds,
        "by_bytes": row.by_bytes,
        "interaction": interaction and interaction.value,
        "interaction_margin": interaction and interaction.margin,
        "interaction_p_corrected": row.p_interaction,
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
    return {**row} | {name: " ".join(map(repr, row[name])) for name in ("values", "seeds")}


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


def _format_difference(difference: Difference | None) -> str:
    return UNKNOWN if difference is None else f"{difference.value:+.4f} ± {difference.margin:.4f}"


def _mark(p: float | None) -> str:
    """Return a mark of what is more than noise."""
    return " *" if p is not None and p < SIGNIFICANT else ""


def _format_number(value: float | None, form: str) -> str:
    return UNKNOWN if value is None else f"{value:{form}}"


def _format_p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"
