import csv
import io
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch.loggers import MLFlowLogger

from lightning_xt.checkpoints.flat_config import format_value
from lightning_xt.training.loggers.media import Image, MediaWriter, make_writer
from lightning_xt.training.loggers.tracker import Outcome, Tracker

IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""Variables for the start, where MLflow would wait minutes for a server."""
LONGEST = 500
"""Characters of a param that every server takes."""
MOST = 100
"""Params of one call."""


class MLflow(Tracker):
    """Logger of MLflow.

    Args:
        project: experiment of the runs.
        run_name: name of the run. None = that of the run folder, such as `quickstart/0`.
        tracking_uri: address of the server, or a local database such as `sqlite:///mlflow.db`. None = that of
            MLFLOW_TRACKING_URI, else MLflow's default.
        tags: tags of the run.
    """

    package: ClassVar = "mlflow"
    way_out: ClassVar = (
        "give the address of a server that runs, or a local database, by --trainer.logger.tracking_uri "
        "sqlite:///mlflow.db or MLFLOW_TRACKING_URI, or omit the logger"
    )

    def __init__(
        self,
        *,
        project: str = "lightning-xt",
        run_name: str | None = None,
        tracking_uri: str | None = None,
        tags: dict[str, str] | None = None,
    ) -> None:
        super().__init__(project, run_name)
        self.tracking_uri, self.tags = tracking_uri, tags
        self.client: Any = None

    def open(self, name: str | None, run_id: str | None, config: Mapping[str, Any], folder: Path | None) -> str:
        import mlflow

        with _impatient():
            self.client = mlflow.MlflowClient(self.tracking_uri or mlflow.get_tracking_uri())
            if run_id is not None:
                with suppress(mlflow.MlflowException):
                    return self._continue(run_id, config)
            experiment = self.client.get_experiment_by_name(self.project)
            number = self.client.create_experiment(self.project) if experiment is None else experiment.experiment_id
            run_id = str(self.client.create_run(number, run_name=name, tags=self.tags).info.run_id)
            params = [mlflow.entities.Param(key, value) for key, value in _to_params(config).items()]
            for start in range(0, len(params), MOST):
                self.client.log_batch(run_id, params=params[start : start + MOST])
        return run_id

    def write(self, values: Mapping[str, Any], step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(_clean(name), value, now, step) for name, value in values.items()]
        self.client.log_batch(self.version, metrics=metrics)

    def close(self, outcome: Outcome) -> None:
        names = {"finished": "FINISHED", "failed": "FAILED"}
        self.client.set_terminated(self.version, names.get(outcome, "KILLED"))

    def call(self, method: str, *args: Any) -> None:
        """Call a method of the client for the run, after the calls before."""
        self.submit(lambda: getattr(self.client, method)(self.version, *args))

    def _continue(self, run_id: str, config: Mapping[str, Any]) -> str:
        """Open a run again; options that have changed become tags, because params cannot change."""
        before = self.client.get_run(run_id).data.params
        self.client.update_run(run_id, status="RUNNING")
        for key, value in _to_params(config).items():
            if before.get(key) != value:
                self.client.set_tag(run_id, key, value)
        return run_id


class MLflowWriter(MediaWriter):
    """Writer of media for MLflow, ours or Lightning's logger: files of the run."""

    def __init__(self, call: Callable[..., None]) -> None:
        super().__init__(None)
        self.call = call

    def write_image(self, name: str, image: Image, step: int) -> None:
        self.call("log_image", image, f"{name}/{step:08}.png")

    def write_text(self, name: str, text: str, step: int) -> None:
        self.call("log_text", text, f"{name}/{step:08}.txt")

    def write_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]], step: int) -> None:
        table = io.StringIO()
        csv.writer(table).writerows([columns, *rows])
        self.call("log_text", table.getvalue(), f"{name}/{step:08}.csv")


@make_writer.register
def _(logger: MLflow) -> MediaWriter:
    return MLflowWriter(logger.call)


@make_writer.register
def _(logger: MLFlowLogger) -> MediaWriter:
    return MLflowWriter(lambda method, *args: getattr(logger.experiment, method)(logger.run_id, *args))


def _to_params(config: Mapping[str, Any]) -> dict[str, str]:
    """Return options as params, which are texts that are not empty."""
    return {_clean(name): format_value(value)[:LONGEST] or '""' for name, value in config.items()}


def _clean(name: str) -> str:
    """Return a name without characters that MLflow refuses."""
    return re.sub(r"[^\w/. -]", "_", name, flags=re.ASCII)


@contextmanager
def _impatient() -> Iterator[None]:
    """Let calls to a server that does not answer end soon, unless you have set how long they wait."""
    added = {name: value for name, value in IMPATIENT.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
