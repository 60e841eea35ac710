"""The table of a run's metrics: `metrics.csv`."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class MetricsTable:
    """Rows of a `metrics.csv`.

    Args:
        columns: names of the metrics.
        rows: step and values, as they are written, of each row that can be read; a missing value is "".
        dropped: rows that cannot be read.
    """

    columns: Sequence[str]
    rows: Sequence[tuple[int, Sequence[str]]]
    dropped: int


def parse_metrics(content: bytes) -> MetricsTable | None:
    """Parse the contents of a `metrics.csv`; None if its first line does not name columns."""
    # A crash may have cut off the last row.
    header, *lines = content.split(b"\n")[:-1] or [b""]
    columns = _parse_row(header)
    if content and (columns[:1] != ["step"] or not all(map(str.isprintable, columns)) or "" in columns):
        return None
    rows = [_parse_row(line) for line in lines]
    whole = [(int(row[0]), row[1:]) for row in rows if _is_whole(row, columns)]
    return MetricsTable(columns[1:], whole, len(rows) - len(whole))


def _parse_row(line: bytes) -> list[str]:
    """Split a line; a line that is not one of a table has no values."""
    try:
        return next(csv.reader([line.decode("utf-8")], strict=True), [])
    except (UnicodeDecodeError, csv.Error):
        return []


def _is_whole(row: list[str], columns: list[str]) -> bool:
    """Return whether a row has a step, and a number or nothing in each other column."""
    try:
        for value in (row[0], *filter(None, row[1:])):
            float(value)
        return len(row) == len(columns) and int(row[0]) >= -1
    except (IndexError, ValueError):
        return False
