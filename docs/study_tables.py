"""Tables of the published ablations, in docs/guides/what-helps.md and README.md, from the CSV files in docs/studies.

Usage: python docs/study_tables.py     writes the tables again, from the table.csv that each ablation left
"""

import csv
import os
import re
from pathlib import Path

from introspection import ROOT

STUDIES = ROOT / "docs/studies"
PAGES = (ROOT / "docs/guides/what-helps.md", ROOT / "README.md")
BEGIN = re.compile(r"<!-- study: (\w+)(?: (\d+))? -->\n.*?<!-- end of the study -->", re.S)
"""Table of a study in a page, perhaps of its first rows only."""
COLUMNS = ("variant", "bits per byte", "against the base", "verdict", "time", "parameters", "by seconds")
Row = dict[str, str]


def fill(text: str, page: Path) -> str:
    """Return the text of a page with the tables of the studies."""

    def write(place: re.Match[str]) -> str:
        name, number = place.groups()
        rows = read_rows(STUDIES / f"{name}.csv")
        table = write_table(rows if number is None else rows[: 1 + int(number)], page)
        head = f"<!-- study: {name}{'' if number is None else f' {number}'} -->"
        return "\n".join([head, "", *table, "", "<!-- end of the study -->"])

    return BEGIN.sub(write, text)


def read_rows(file: Path) -> list[Row]:
    """Return the rows of a study, that of the base first and then the best."""
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def write_table(rows: list[Row], page: Path) -> list[str]:
    """Write the lines of a table."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    return lines + [f"| {' | '.join(_write_cells(row, page))} |" for row in rows]


def _write_cells(row: Row, page: Path) -> list[str]:
    mean, difference, seconds = (row[name] and float(row[name]) for name in ("mean", "difference", "by_seconds"))
    return [
        " + ".join(_link(part, page) for part in row["variant"].split("+")),
        f"{mean:.4f} ± {float(row['margin']):.4f}" if mean and row["margin"] else "",
        f"{difference:+.4f} ± {float(row['difference_margin']):.4f}" if difference else "",
        row["verdict"],
        _format(row["time_ratio"]),
        _format(row["parameters_ratio"]),
        f"{seconds:.4f}" if seconds else "",
    ]


def _link(name: str, page: Path) -> str:
    """Write the name of a variant, with a link to its overlay."""
    overlay = ROOT / f"configs/variants/{name}.yaml"
    if not overlay.is_file():
        return name
    return f"[`{name}`]({os.path.relpath(overlay, page.parent)})"


def _format(ratio: str) -> str:
    return f"{float(ratio):.2f}" if ratio else ""


if __name__ == "__main__":
    for each in PAGES:
        each.write_text(fill(each.read_text("utf-8"), each), "utf-8")
