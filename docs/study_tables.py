"""Tables of the published ablations, in docs/guides/what-helps.md.

Usage: python docs/study_tables.py     writes the tables again, from the table of each study in docs/studies
"""

import csv
import os
import re
from pathlib import Path

from introspection import ROOT

STUDIES = ROOT / "docs/studies"
PAGES = (ROOT / "docs/guides/what-helps.md",)
PLACE = re.compile(r"<!-- study: (\w+)(?: (\d+))? -->\n.*?<!-- end of the study -->", re.S)
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

    return PLACE.sub(write, text)


def read_rows(file: Path) -> list[Row]:
    """Return the rows of a study, that of the base first and then the best."""
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def write_table(rows: list[Row], page: Path) -> list[str]:
    """Write the lines of a table, without the columns that no row fills."""
    cells = [COLUMNS, *(_write_cells(row, page) for row in rows)]
    filled = [number for number in range(len(COLUMNS)) if any(line[number] for line in cells[1:])]
    lines = [f"| {' | '.join(line[number] for number in filled)} |" for line in cells]
    return [lines[0], f"|{'---|' * len(filled)}", *lines[1:]]


def _write_cells(row: Row, page: Path) -> tuple[str, ...]:
    seconds = row["by_seconds"] and f"{float(row['by_seconds']):.4f}"
    return (
        " + ".join(_link(part, page) for part in row["variant"].split(" + ")),
        row["mean"] and f"{float(row['mean']):.4f}" + _margin(row["margin"]),
        row["difference"] and f"{float(row['difference']):+.4f}" + _margin(row["difference_margin"]),
        row["verdict"],
        _ratio(row["time_ratio"]),
        _ratio(row["parameters_ratio"]),
        seconds,
    )  # fmt: skip


def _link(name: str, page: Path) -> str:
    """Write the name of a variant, with a link to its overlay, that of the studies if they have their own."""
    overlays = (folder / f"{name}.yaml" for folder in (STUDIES / "overlays", ROOT / "configs/variants"))
    overlay = next((file for file in overlays if file.is_file()), None)
    return name if overlay is None else f"[`{name}`]({os.path.relpath(overlay, page.parent)})"


def _margin(margin: str) -> str:
    return f" ± {float(margin):.4f}" if margin else ""


def _ratio(ratio: str) -> str:
    return f"{float(ratio):.2f}" if ratio else ""


if __name__ == "__main__":
    for each in PAGES:
        each.write_text(fill(each.read_text("utf-8"), each), "utf-8")
