import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only


class TensorBoard(TensorBoardLogger):
    """TensorBoard logger that writes into a run's folder, one point a step for each curve.

    Args:
        folder: the run's folder.
        resumed: step from which the run resumes; later points of the folder are hidden. None = a new run.
    """

    def __init__(self, folder: Path, resumed: int | None = None) -> None:
        # TensorBoard hides the points from a step on, but without its server at no first start, which a new run is.
        purge = 0 if resumed is None else resumed + 1
        super().__init__(str(folder), name="", version="", default_hp_metric=False, purge_step=purge)
        self._folder, self._resumed = folder, resumed or 0
        self._step: int | None = None
        self._written: set[str] = set()
        """Curves that have a point for that step."""

    @property
    def experiment(self) -> Any:
        """Writer of the events."""
        if self._experiment is None and not getattr(rank_zero_only, "rank", 0):
            _sort_before_now(self._folder)
        return super().experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write points that are not there yet. A step that is saved logs its metrics twice."""
        if step != self._step:
            # An owed validation belongs to the step from which the run resumes.
            shown = step is not None and step <= self._resumed
            self._step, self._written = step, _list_curves(self._folder, step) if shown else set()
        # Training data has no end, so that the epoch is always 0.
        new = {name: value for name, value in metrics.items() if name not in self._written and name != "epoch"}
        self._written |= new.keys()
        super().log_metrics(new, step)

    @rank_zero_only
    def save(self) -> None:
        """Flush the events. The run's config holds the options, so there is no `hparams.yaml`."""
        # Without a logged value there is no file, so that a run that does not begin leaves none.
        if self._experiment is not None:
            self.experiment.flush()


def _sort_before_now(folder: Path) -> None:
    """Rename files of events that the clock names as of now or later: they are read by name, the newest last."""
    files, now = sorted(folder.glob("events.out.tfevents.*")), int(time.time())
    if files and files[-1].name >= f"events.out.tfevents.{now:010d}":
        for back, file in enumerate(reversed(files), 1):
            with suppress(OSError):
                file.rename(file.with_name(re.sub(r"\d+", f"{now - back:010d}", file.name, count=1)))


def _list_curves(folder: Path, step: int | None) -> set[str]:
    """List the curves of a folder that have a point at a step."""
    # Here, for it takes long to import.
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.compat.proto.event_pb2 import SessionLog

    found: set[str] = set()
    # By name, as TensorBoard reads them: a start hides earlier points from its step on.
    for file in sorted(folder.glob("events.*")):
        # The loader stops where a file is damaged.
        for event in EventFileLoader(str(file)).Load() if file.is_file() else ():
            if step is not None and event.session_log.status == SessionLog.START and event.step <= step:
                found.clear()
            if event.step == step:
                found |= {value.tag for value in event.summary.value}
    return found
