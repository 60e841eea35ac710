import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from lightning_xt.core.files import replacing


class MetricsFile(Logger):
    """Writes metrics as a table, a row for each step, and goes on with the table that is there.

    New rows are put at the end; the file is written anew, beside the old one, where that will not do.

    Args:
        file: the CSV file.
        first_step: rows of the file from this step on are dropped, because the run goes back there. None = none are.
    """

    def __init__(self, file: Path, first_step: int | None = None) -> None:
        super().__init__()
        self.file = file
        self._rows: dict[int, dict[str, Any]] = {}
        self._read = False
        self._first_step = first_step
        self._changed: set[int] = set()
        self._columns: list[str] | None = None
        self._last = (-1, 0)
        """The last row of the file: its step, and the byte it starts at."""

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
        """The run's config holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._continue()
        step = -1 if step is None else step
        row = self._rows.setdefault(step, {})
        row.update({name: value for name, value in metrics.items() if name != "epoch"})
        self._changed.add(step)

    @rank_zero_only
    def save(self) -> None:
        if not self._changed:
            return
        names = {name for step in self._changed for name in self._rows[step]}
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
        with self.file.open("r+b") as file:
            step, start = self._last
            if step in self._changed:
                # It has more to say of this step.
                file.truncate(start)
            file.seek(0, io.SEEK_END)
            self._write_rows(file, sorted(self._changed))

    def _rewrite(self) -> None:
        self._columns = sorted({name for row in self._rows.values() for name in row})
        with replacing(self.file) as file:
            file.write(_line(["step", *self._columns]))
            self._write_rows(file, sorted(self._rows))

    def _write_rows(self, file: BinaryIO, steps: Iterable[int]) -> None:
        for step in steps:
            self._last = step, file.tell()
            row = self._rows[step]
            file.write(_line([step, *(row.get(name, "") for name in self._columns or [])]))

    def _continue(self) -> None:
        """Takes up the rows of an earlier part of the run."""
        if self._read:
            return
        self._read = True
        if not self.file.is_file():
            return
        with self.file.open(newline="", encoding="utf-8") as file:
            # A crash may have cut the last row off.
            whole = [line for line in file if line.endswith("\n")]
        for row in csv.DictReader(whole):
            step = int(row.pop("step"))
            if self._first_step is None or step < self._first_step:
                self._rows[step] = {name: value for name, value in row.items() if value != ""}


def _line(values: Iterable[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow(values)
    return text.getvalue().encode("utf-8")
