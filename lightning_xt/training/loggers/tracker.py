import json
from abc import abstractmethod
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from lightning_xt.checkpoints.flat_config import flatten_config
from lightning_xt.system.files import read_log, replace_file
from lightning_xt.system.json_text import to_json
from lightning_xt.system.stopping import INTERRUPTED, Stopped
from lightning_xt.training.loggers.background_writer import BackgroundWriter

RUNS = "trackers.json"
"""File of a run folder with the runs of the trackers, which a resumed run continues."""
PATIENCE = 60.0
"""Seconds that the end of a run waits for a tracker."""

Outcome = Literal["finished", "preempted", "interrupted", "failed"]
"""End of a run: a signal has stopped a preempted one, which will resume, and the user an interrupted one."""


class Tracker(Logger):
    """Base of the loggers of experiment trackers, besides `metrics.csv` and TensorBoard.

    A run has one run in the tracker, resumes included, with the config, the metrics by the steps done, samples, figures
    and tables. A tracker that cannot be reached at the start ends the command before anything is written. Later
    failures cost neither time nor the run, because a thread writes.

    Args:
        project: project of the runs in the tracker.
        run_name: name of the run there. None = that of the run folder, such as `quickstart/0`.
    """

    package: ClassVar[str]
    """Package of the tracker, and the extra of this package that installs it."""
    way_out: ClassVar[str]
    """Advice for a tracker that cannot be started."""

    def __init__(self, project: str, run_name: str | None) -> None:
        super().__init__()
        if find_spec(self.package) is None:
            raise ValueError(
                f'the package {self.package} is not installed; install it by pip install "lightning-xt[{self.package}]"'
            )
        self.project, self.run_name = project, run_name
        self._folder: Path | None = None
        self._config: dict[str, Any] = {}
        self._run_id: str | None = None
        self._writer: BackgroundWriter | None = None
        self._unfinished: Outcome = "failed"
        self._step: int | None = None
        self._written: set[str] = set()
        """Metrics that have a value for that step."""

    @property
    def name(self) -> str:
        return self.project

    @property
    def version(self) -> str | None:
        """Id of the run in the tracker; None before it has begun."""
        return self._run_id

    @rank_zero_only
    def begin(self, folder: Path, config: Mapping[str, Any]) -> None:
        """Open the run in the tracker: the one that the run folder names, else a new one.

        Args:
            folder: the run folder.
            config: config of the run.

        Raises:
            ValueError: the tracker cannot be used.
        """
        self._folder, self._config = folder, flatten_config(config)
        key, known = f"{type(self).__name__} {self.project}", _read_runs(folder)
        self._run_id = known.get(key)
        self._open()
        if known.get(key) != self._run_id:
            with replace_file(folder / RUNS) as file:
                file.write(to_json(known | {key: self._run_id}, indent=2).encode("utf-8"))

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Keep the options of a model for a run without a folder; that of a run folder has its config."""
        if self._folder is None:
            self._config |= flatten_config(params if isinstance(params, Mapping) else vars(params))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        # A step that is saved logs its metrics twice.
        if step != self._step:
            self._step, self._written = step, set()
        new = {name: float(value) for name, value in metrics.items() if name not in {"epoch", *self._written}}
        self._written |= new.keys()
        if new:
            self.log_values(new, step or 0)

    @rank_zero_only
    def log_values(self, values: Mapping[str, Any], step: int) -> None:
        """Log numbers, or media of the tracker."""
        self.submit(lambda: self.write(values, step))

    @rank_zero_only
    def submit(self, call: Callable[[], None]) -> None:
        """Have a call made by the thread that writes; open the run in the tracker if it is not open."""
        if self._writer is None:
            self._open()
        if self._writer is not None:
            self._writer.put(call)

    def note_exception(self, exception: BaseException) -> None:
        """Note why the run ends, before `finalize`, to which Lightning says that it failed."""
        if isinstance(exception, Stopped):
            self._unfinished = "interrupted" if exception.code == INTERRUPTED else "preempted"

    @rank_zero_only
    def finalize(self, status: str) -> None:
        writer, self._writer = self._writer, None
        outcome: Outcome = "finished" if status in ("success", "finished") else self._unfinished
        if writer is not None:
            writer.put(lambda: self.close(outcome))
            writer.close(PATIENCE)

    @abstractmethod
    def open(self, name: str | None, run_id: str | None, config: Mapping[str, Any], folder: Path | None) -> str:
        """Open a run, and return its id.

        Args:
            name: name of the run. None = the tracker's choice.
            run_id: the run to continue. None = a new one.
            config: options by dotted name.
            folder: the run folder. None = there is none.
        """

    @abstractmethod
    def write(self, values: Mapping[str, Any], step: int) -> None:
        """Write numbers or media."""

    @abstractmethod
    def close(self, outcome: Outcome) -> None:
        """Close the run, which may be opened again unless it has finished."""

    def _open(self) -> None:
        folder = self._folder
        own = None if folder is None else f"{folder.absolute().parent.name}/{folder.name}"
        try:
            self._run_id = self.open(self.run_name or own, self._run_id, self._config, folder)
        except Exception as error:
            reason = " ".join(str(error).split())[:300] or repr(error)
            raise ValueError(
                f"trainer.logger: {type(self).__name__} cannot start ({reason}); {self.way_out}"
            ) from error
        self._writer = BackgroundWriter(type(self).__name__)


def _read_runs(folder: Path) -> dict[str, str]:
    """Read the runs of a run folder in trackers, by tracker and project."""
    try:
        found = json.loads(read_log(folder / RUNS)[0] or b"{}")
    except ValueError:
        return {}
    known = found.items() if isinstance(found, dict) else ()
    return {key: run_id for key, run_id in known if isinstance(run_id, str)}
