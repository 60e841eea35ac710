"""Table of an ablation as one HTML page that sorts and filters, without outside resources."""

import re
from html import escape
from pathlib import Path

from lightning_xt.commands.ablation.study_description import describe_study
from lightning_xt.commands.ablation.study_results import StudyResults
from lightning_xt.commands.ablation.study_rows import NOISE, ONE_SEED, RATIOS, SAME, StudyRow
from lightning_xt.commands.ablation.study_tables import format_row, list_columns

PAGE = Path(__file__).with_name("study_page.html")
CLASSES = {
    "better": "better",
    "likely better": "likely-better",
    NOISE: "noise",
    "likely worse": "likely-worse",
    "worse": "worse",
    "the base": "base",
    SAME: "same",
    ONE_SEED: "one-seed",
}
"""Classes of rows by their verdicts."""
FAILED, OPEN = "failed", "open"
"""Classes of rows that have failed, and of those that say nothing yet."""


def format_page(results: StudyResults, rows: list[StudyRow]) -> str:
    """Return the page."""
    columns = list_columns(results)
    kinds = (*CLASSES.items(), ("failed", FAILED), ("not finished", OPEN))
    found = {
        "facts": "\n".join(f"<li>{escape(line)}</li>" for line in describe_study(results, rows)),
        "choices": "".join(f'<option value="{kind}">{escape(name)}</option>' for name, kind in kinds),
        "heads": "".join(f'<th scope="col"><button>{escape(name)}</button></th>' for name in columns),
        "rows": "\n".join(_format_row(row, results, columns) for row in rows),
    }
    # In one pass, so that a row's text is never taken for a place.
    return re.sub(r"<!-- (\w+) -->", lambda place: found[place[1]], PAGE.read_text(encoding="utf-8"))


def _format_row(row: StudyRow, results: StudyResults, columns: list[str]) -> str:
    keys = _list_keys(row)
    cells = []
    for name, text in zip(columns, format_row(row, results), strict=True):
        key = keys.get(name, text)
        more = f"<small>{escape(row.summary)}</small>" if name == "variant" and row.summary else ""
        kind = ' class="verdict"' if name == "verdict" else ""
        cells.append(f'<td{kind} data-key="{escape("" if key is None else str(key))}">{escape(text)}{more}</td>')
    other = FAILED if row.verdict.startswith("failed") else OPEN
    return f'<tr class="{CLASSES.get(row.verdict, other)}">{"".join(cells)}</tr>'


def _list_keys(row: StudyRow) -> dict[str, float | str | None]:
    """Return the values by which the columns of numbers are sorted."""
    mean = None if row.mean is None else row.mean.value
    return {
        "bits per byte": mean,
        "nats a token": mean,
        "against base": None if row.difference is None else row.difference.value,
        "interaction": None if row.interaction is None else row.interaction.value,
        "p": row.p,
        "p, shared spread": row.p_shared,
        "by seconds": row.by_seconds,
        "by bytes": row.by_bytes,
        "learning rate": row.rate,
        **{name: row.ratios.get(name) for name in RATIOS},
        **{f"on {name}": None if cell.mean is None else cell.mean.value for name, cell in row.probes.items()},
    }
