import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from lightning_xt.checkpoints.metrics_table import parse_metrics
from lightning_xt.system.files import read_log, replace_file, set_aside


class MetricsFile(Logger):
    """Logger that writes metrics as a table, a row for each step, and continues an existing table.

    New rows are appended. If a row has new columns or an earlier step, the file is replaced.

    Args:
        folder: the run's folder, in which metrics.csv is written.
        resumed: step from which the run resumes; later rows of the file are dropped. None = a new run.
    """

    def __init__(self, folder: Path, resumed: int | None = None) -> None:
        super().__init__()
        self.file = folder / "metrics.csv"
        self._resumed = resumed
        self._changed: dict[int, dict[str, Any]] = {}
        """Rows that are not in the file yet, by step. The file is not held in memory."""
        self._columns: list[str] | None = None
        self._last: tuple[int, int, dict[str, Any]] = (-1, 0, {})
        """Last row of the file: its step, the byte it starts at, and its values."""

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.file.parent)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Ignore them: the run's config holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        row = self._changed.setdefault(-1 if step is None else step, {})
        row.update({name: value for name, value in metrics.items() if name != "epoch"})

    @rank_zero_only
    def save(self) -> None:
        if not self._changed:
            return
        names = {name for row in self._changed.values() for name in row}
        fits = self._columns is not None and names <= set(self._columns) and min(self._changed) >= self._last[0]
        if fits and self.file.is_file():
            self._append()
        else:
            self._rewrite()
        self._changed.clear()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()

    def _append(self) -> None:
        step, start, row = self._last
        if step in self._changed:
            self._changed[step] = row | self._changed[step]
            if self._changed[step] == row:
                del self._changed[step]
        with self.file.open("r+b") as file:
            # A row that gets other values is overwritten, so that it is never missing.
            file.seek(start) if step in self._changed else file.seek(0, io.SEEK_END)
            self._write_rows(file, self._changed)
            # They may be shorter.
            file.truncate()

    def _rewrite(self) -> None:
        rows = dict(self._read_rows())
        for step, row in self._changed.items():
            rows[step] = rows.get(step, {}) | row
        # The dropped rows are gone from here on.
        self._resumed = None
        self._columns = sorted({name for row in rows.values() for name in row})
        with replace_file(self.file) as file:
            file.write(_format_row(["step", *self._columns]))
            self._write_rows(file, rows)

    def _write_rows(self, file: BinaryIO, rows: dict[int, dict[str, Any]]) -> None:
        for step in sorted(rows):
            row = rows[step]
            self._last = step, file.tell(), row
            file.write(_format_row([step, *(row.get(name, "") for name in self._columns or [])]))

    def _read_rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Read the rows of the file, except those after the step from which the run resumes."""
        content, sentence = read_log(self.file)
        table = parse_metrics(content)
        if table is None:
            sentence = set_aside(self.file, "its first line does not name columns")
        elif table.dropped:
            sentence = f"{self.file} was damaged: {table.dropped} of its rows cannot be read and are dropped"
        if sentence is not None:
            rank_zero_info(sentence)
        if table is None:
            return
        for step, values in table.rows:
            if self._resumed is None or step <= self._resumed:
                yield step, {name: value for name, value in zip(table.columns, values, strict=True) if value != ""}


def _format_row(values: Iterable[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow(values)
    return text.getvalue().encode("utf-8")
