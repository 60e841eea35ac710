"""A run and its resume in the real WandB, MLflow and Trackio, offline, read back from their files; where installed."""

import json
import sqlite3
import struct
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from lightning_xt.cli import main
from lightning_xt.training.loggers.media import log_figure, log_histogram, log_table

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def train(kind, monkeypatch):
    """Train six steps, resume for two more, and return the id of the run in the tracker."""
    from lightning_xt.training.callbacks.sample_text import SampleText

    sample = SampleText.on_validation_epoch_end

    def add_media(self, trainer, module):
        sample(self, trainer, module)
        figure = Figure()
        figure.subplots().plot([1, 2])
        log_figure(trainer.loggers, "figures/line", figure, trainer.global_step)
        log_table(trainer.loggers, "pairs", ["source"], [["a"]], trainer.global_step)
        log_histogram(trainer.loggers, "sizes", next(module.parameters()), trainer.global_step)

    monkeypatch.setattr(SampleText, "on_validation_epoch_end", add_media)
    assert main(["fit", "-c", "tiny.yaml", f"--trainer.logger+={kind}"]) == 0
    assert main(["fit", "runs/tiny/0", "--resume", "--trainer.max_steps", "8"]) == 0
    (found,) = json.loads(Path("runs/tiny/0/trackers.json").read_text()).values()
    return found


def read_records(file):
    """Read the records of an offline file of wandb: blocks of 32 KiB with parts of records."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, part = file.read_bytes(), 7, b""
    assert data.startswith(b":W&B")
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        part += data[at + 7 : at + 7 + size]
        at += 7 + size
        # Whole records, and the last part of others.
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(part)
            yield record
            part = b""


def test_wandb(fresh, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run_id = train("WandB", monkeypatch)
    rows = []
    for file in sorted(Path("runs/tiny/0/wandb").glob("offline-run-*/*.wandb")):
        records = list(read_records(file))
        (run,) = [each.run for each in records if each.HasField("run")]
        assert (run.run_id, run.display_name, run.project) == (run_id, "tiny/0", "lightning-xt")
        config = {each.key: each.value_json for each in run.config.update}
        assert json.loads(config["model.decoder.attention.position"]) == "Rotary"
        rows += [
            {each.key or ".".join(each.nested_key): each.value_json for each in record.history.item}
            for record in records if record.HasField("history")
        ]  # fmt: skip
    points = {int(row["step"]) for row in rows if "val/bits_per_byte" in row}
    assert points == {4, 6, 8}
    assert sorted(int(row["step"]) for row in rows if "train/loss" in row) == list(range(1, 9))
    kinds = {name: json.loads(value) for row in rows for name, value in row.items() if name.endswith("._type")}
    assert kinds == {
        "samples/0._type": "html-file", "figures/line._type": "image-file", "pairs._type": "table-file",
        "sizes._type": "histogram",
    }  # fmt: skip


def test_mlflow(fresh, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    pytest.importorskip("sqlalchemy", reason="sqlalchemy is not installed, which a local database of mlflow needs")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///m.db")
    run_id = train("MLflow", monkeypatch)
    client = mlflow.MlflowClient("sqlite:///m.db")
    run = client.get_run(run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "tiny/0")
    assert run.data.params["model.decoder.attention.position"] == "Rotary"
    assert (run.data.params["trainer.max_steps"], run.data.tags["trainer.max_steps"]) == ("6", "8")
    assert [each.step for each in client.get_metric_history(run_id, "val/bits_per_byte")] == [4, 6, 8]
    assert [each.step for each in client.get_metric_history(run_id, "train/loss")] == list(range(1, 9))
    files = {
        each.path for folder in ("samples/0", "figures/line", "pairs") for each in client.list_artifacts(run_id, folder)
    }
    assert files >= {"samples/0/00000004.txt", "figures/line/00000008.png", "pairs/00000006.csv"}


def test_trackio(fresh, monkeypatch):
    # Read when it is imported.
    monkeypatch.setenv("TRACKIO_DIR", str(fresh / "trackio"))
    pytest.importorskip("trackio", reason="trackio is not installed")
    name = train("Trackio", monkeypatch)
    with sqlite3.connect(fresh / "trackio/lightning-xt.db") as database:
        rows = [(step, json.loads(values)) for step, values in database.execute("select step, metrics from metrics")]
        assert {found for (found,) in database.execute("select run_name from metrics")} == {name}
        config = json.loads(next(database.execute("select config from configs"))[0])
    assert config["model.decoder.attention.position"] == "Rotary"
    assert [step for step, values in rows if "val/bits_per_byte" in values] == [4, 6, 8]
    assert sorted(step for step, values in rows if "train/loss" in values) == list(range(1, 9))
    kinds = {key: value["_type"] for _, values in rows for key, value in values.items() if isinstance(value, dict)}
    assert kinds == {
        "samples/0": "trackio.html",
        "figures/line": "trackio.image",
        "pairs": "trackio.table",
        "sizes": "trackio.histogram",
    }
