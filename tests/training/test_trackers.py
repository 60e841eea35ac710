"""WandB, MLflow and Trackio: what they are given, resumed runs, and trackers that fail."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.loggers import MLFlowLogger, WandbLogger
from tracker_stand_ins import install_mlflow, install_trackio, install_wandb

from lightning_xt import MLflow, Trackio, WandB
from lightning_xt.cli import main
from lightning_xt.commands.trainer.standard_parts import choose_loggers
from lightning_xt.system.stopping import Stopped
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.loggers import background_writer, tracker
from lightning_xt.training.loggers.background_writer import BackgroundWriter
from lightning_xt.training.loggers.media import log_histogram, log_table, log_text, make_writer

CONFIG = {"trainer": {"max_steps": 6}, "model": {"class_path": "x.LanguageModel", "init_args": {"dim": 8}}}
FLAT = {"trainer.max_steps": 6, "model": "LanguageModel", "model.dim": 8}
PIXELS = np.zeros((2, 3, 3), np.uint8)


@pytest.fixture
def wandb(monkeypatch):
    return install_wandb(monkeypatch)


@pytest.fixture
def mlflow(monkeypatch):
    return install_mlflow(monkeypatch)


@pytest.fixture
def trackio(monkeypatch):
    return install_trackio(monkeypatch)


@pytest.fixture
def run(tmp_path):
    """Return the folder of a run."""
    folder = tmp_path / "tiny/0"
    folder.mkdir(parents=True)
    return folder


def log_everything(logger):
    logger.log_metrics({"val/loss": 2.5, "epoch": 0}, 4)
    # Again, as a step that is saved does.
    logger.log_metrics({"val/loss": 2.5, "epoch": 0}, 4)
    logger.log_metrics({"train/loss": torch.tensor(1.5)}, 4)
    make_writer(logger).write_image("maps/0", PIXELS, 4)
    log_text([logger], "samples/0", "<b>\x07", 4)
    log_table([logger], "pairs", ["source", "target"], [["a", "b"]], 4)
    log_histogram([logger], "sizes", torch.ones(3, requires_grad=True), 4)
    logger.finalize("success")
    # Lightning may do so twice.
    logger.finalize("failed")


def test_wandb(wandb, run, monkeypatch):
    experiment, init = wandb
    before = sys.stdin
    init.side_effect = lambda **options: experiment if sys.stdin.read() == "" else None
    logger = WandB(entity="us", mode="offline", tags=["a"])
    logger.begin(run, CONFIG)
    assert sys.stdin is before
    given = init.call_args.kwargs
    assert given.pop("settings").init_timeout == 30.0
    assert given == {
        "project": "lightning-xt", "entity": "us", "name": "tiny/0", "id": None, "resume": "allow", "config": FLAT,
        "dir": str(run), "mode": "offline", "tags": ["a"], "reinit": "finish_previous",
    }  # fmt: skip
    log_everything(logger)
    logged = [call.args[0] for call in experiment.log.call_args_list]
    assert logged[:2] == [{"val/loss": 2.5, "step": 4}, {"train/loss": 1.5, "step": 4}]
    image, text, table, sizes = (next(iter(each.values())) for each in logged[2:])
    assert [next(iter(each)) for each in logged[2:]] == ["maps/0", "samples/0", "pairs", "sizes"]
    assert image.values[0] is PIXELS
    assert text.values == ("<pre>&lt;b&gt;\\x07</pre>",)
    assert table.options == {"columns": ["source", "target"], "data": [["a", "b"]]}
    assert sizes.values[0].tolist() == [1.0] * 3
    experiment.finish.assert_called_once_with(exit_code=0)
    assert (logger.name, logger.version) == ("lightning-xt", "w1")


def test_mlflow(mlflow, run, monkeypatch):
    client, module = mlflow
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "99")
    waits = []
    client.create_run.side_effect = lambda *args, **options: (
        waits.append((os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"], os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]))
        or client.create_run.return_value
    )
    logger = MLflow(project="p", tags={"a": "b"})
    logger.begin(run, CONFIG)
    module.MlflowClient.assert_called_once_with("sqlite:///default.db")
    client.create_experiment.assert_called_once_with("p")
    client.create_run.assert_called_once_with("7", run_name="tiny/0", tags={"a": "b"})
    assert waits == [("1", "99")] and "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ
    params = [("trainer.max_steps", "6"), ("model", "LanguageModel"), ("model.dim", "8")]
    client.log_batch.assert_called_once_with("m1", params=params)
    client.log_batch.reset_mock()
    log_everything(logger)
    metrics = [call.kwargs["metrics"][0] for call in client.log_batch.call_args_list]
    assert [(name, value, step) for name, value, _, step in metrics] == [("val/loss", 2.5, 4), ("train/loss", 1.5, 4)]
    client.log_image.assert_called_once_with("m1", PIXELS, "maps/0/00000004.png")
    texts = [call.args for call in client.log_text.call_args_list]
    assert texts == [
        ("m1", "<b>\x07", "samples/0/00000004.txt"), ("m1", "source,target\r\na,b\r\n", "pairs/00000004.csv")
    ]  # fmt: skip
    client.set_terminated.assert_called_once_with("m1", "FINISHED")


def test_trackio(trackio, run):
    experiment, init = trackio
    logger = Trackio(space_id="us/runs")
    logger.begin(run, CONFIG)
    given = init.call_args.kwargs
    name = given.pop("name")
    assert name.startswith("tiny/0-") and len(name) == len("tiny/0-") + 6
    assert given == {
        "project": "lightning-xt", "space_id": "us/runs", "config": FLAT, "resume": "never", "embed": False,
        "auto_log_gpu": False, "auto_log_cpu": False,
    }  # fmt: skip
    log_everything(logger)
    logged = [call.args for call in experiment.log.call_args_list]
    assert logged[:2] == [({"val/loss": 2.5}, 4), ({"train/loss": 1.5}, 4)]
    assert [next(iter(values)) for values, _ in logged[2:]] == ["maps/0", "samples/0", "pairs", "sizes"]
    assert logged[3][0]["samples/0"].values == ("<pre>&lt;b&gt;\\x07</pre>",)
    assert logged[4][0]["pairs"].options == {"columns": ["source", "target"], "data": [["a", "b"]]}
    experiment.finish.assert_called_once_with()
    log_table([logger], "pairs", ["source"], [["a\x07"]], 5)
    logger.finalize("success")
    assert experiment.log.call_args.args[0]["pairs"].options["data"] == [["a\\x07"]]


def test_a_resumed_run_is_continued(wandb, mlflow, trackio, run):
    client, _ = mlflow
    for _ in range(2):
        for kind in (WandB, MLflow, Trackio):
            logger = kind()
            logger.begin(run, CONFIG)
            logger.finalize("failed")
    known = json.loads((run / "trackers.json").read_text())
    assert known["WandB lightning-xt"] == wandb[1].call_args.kwargs["id"] == "w1"
    assert known["MLflow lightning-xt"] == "m1"
    options = trackio[1].call_args.kwargs
    assert known["Trackio lightning-xt"] == options["name"] and options["resume"] == "allow"
    client.create_run.assert_called_once()
    client.update_run.assert_called_once_with("m1", status="RUNNING")
    client.set_terminated.assert_called_with("m1", "FAILED")
    wandb[0].finish.assert_called_with(exit_code=1)
    # A run that a signal has stopped has not failed, and may resume.
    for code, marked in ((75, True), (130, False)):
        wandb[0].reset_mock()
        for kind in (WandB, MLflow, Trackio):
            logger = kind()
            logger.begin(run, CONFIG)
            logger.note_exception(Stopped(code, "stopped"))
            logger.finalize("failed")
        client.set_terminated.assert_called_with("m1", "KILLED")
        wandb[0].finish.assert_called_once_with(exit_code=1)
        assert wandb[0].mark_preempting.called == marked
    # Another project is another run.
    WandB(project="other").begin(run, CONFIG)
    assert wandb[1].call_args.kwargs["id"] is None


def test_options_that_change_become_tags_of_mlflow(mlflow, run):
    client, module = mlflow
    (run / "trackers.json").write_text('{"MLflow lightning-xt": "m0"}')
    client.get_run.return_value.data.params = {"model": "LanguageModel", "model.dim": "8", "trainer.max_steps": "5"}
    logger = MLflow()
    logger.begin(run, CONFIG)
    assert logger.version == "m0"
    client.set_tag.assert_called_once_with("m0", "trainer.max_steps", "6")
    # A run that was deleted there begins again.
    client.get_run.side_effect = module.MlflowException()
    logger = MLflow()
    logger.begin(run, CONFIG)
    assert logger.version == "m1"


def test_a_preempted_fit_is_not_a_failed_one(mlflow, fresh, monkeypatch):
    monkeypatch.setattr(LanguageModel, "on_after_backward", lambda self: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["fit", "-c", "tiny.yaml", "--trainer.logger+=MLflow"]) == 75
    mlflow[0].set_terminated.assert_called_once_with("m1", "KILLED")


@pytest.mark.parametrize("content", ["{", "[]", '{"WandB lightning-xt": 3}'])
def test_a_damaged_list_of_runs_begins_new_ones(wandb, run, content):
    (run / "trackers.json").write_text(content)
    WandB().begin(run, CONFIG)
    assert wandb[1].call_args.kwargs["id"] is None


def test_a_run_without_a_folder(wandb):
    experiment, init = wandb
    logger = WandB(run_name="mine")
    logger.log_hyperparams({"dim": 8})
    assert not init.called
    logger.log_metrics({"loss": 1.0})
    logger.finalize("finished")
    assert init.call_args.kwargs["config"] == {"dim": 8} and init.call_args.kwargs["name"] == "mine"
    assert init.call_args.kwargs["dir"] is None
    experiment.log.assert_called_once_with({"loss": 1.0, "step": 0})
    # A second fit continues the run.
    logger.log_metrics({"loss": 1.0}, 1)
    logger.finalize("finished")
    assert init.call_args.kwargs["id"] == "w1"


def test_writing_neither_ends_nor_delays_a_run(wandb, run, caplog, monkeypatch):
    experiment, goes = wandb[0], threading.Event()
    logger = WandB()
    logger.begin(run, CONFIG)
    experiment.log.side_effect = ConnectionError("no\nroute")
    with caplog.at_level(logging.INFO):
        for step in (1, 2):
            logger.log_metrics({"loss": 1.0}, step)
        logger.finalize("success")
    assert caplog.messages == [
        "WandB cannot be written (no route); training continues",
        "WandB: 2 values or media are missing there; metrics.csv has the values of the run",
    ]
    caplog.clear()
    monkeypatch.setattr(tracker, "PATIENCE", 0.05)
    monkeypatch.setattr(background_writer, "MOST_WAITING", 2)
    experiment.log.side_effect = lambda values: goes.wait(10)
    with caplog.at_level(logging.INFO):
        for step in range(9):
            logger.log_metrics({"loss": 1.0}, step)
        logger.finalize("success")
    goes.set()
    sentence = "what it has not sent within 0 s may be missing there; metrics.csv has the values of the run"
    assert caplog.messages == [f"WandB: {sentence}"]


def test_calls_are_made_in_their_order():
    made, writer = [], BackgroundWriter("any")
    for number in range(100):
        writer.put(lambda number=number: made.append(number))
    writer.close(10)
    assert made == list(range(100))


def test_closing_waits_once(monkeypatch):
    waited, writer = [], BackgroundWriter("any")
    with monkeypatch.context() as patch:
        patch.setattr(writer._calls, "put", lambda call, timeout: time.sleep(0.05))
        patch.setattr(writer._thread, "join", waited.append)
        writer.close(10)
    assert 0 < waited[0] <= 9.95
    writer.close(10)


def test_writers_of_lightnings_loggers_need_no_import():
    script = """
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, WandbLogger
from lightning_xt.training.loggers.media import make_writer
for kind in (WandbLogger, MLFlowLogger, CSVLogger):
    print(type(make_writer(kind.__new__(kind))).__name__)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["WandBWriter", "MLflowWriter", "MediaWriter"]


def test_loggers_of_lightning_get_media_too():
    class Wandb(WandbLogger):
        def __init__(self):
            self.log_metrics = MagicMock()

    class MLFlow(MLFlowLogger):
        experiment, run_id = MagicMock(), "l1"

        def __init__(self):
            pass

    logger = Wandb()
    with pytest.MonkeyPatch.context() as patch:
        install_wandb(patch)
        log_table([logger], "pairs", ["source"], [["a"]], 4)
    (values, step), _ = logger.log_metrics.call_args
    assert values["pairs"].options == {"columns": ["source"], "data": [["a"]]} and step == 4
    log_text([logger := MLFlow()], "samples/0", "a", 4)
    logger.experiment.log_text.assert_called_once_with("l1", "a", "samples/0/00000004.txt")


def test_trackers_get_fits_only(wandb, trackio):
    ours, other = WandB(), object.__new__(tracker.Logger.__subclasses__()[0])
    assert choose_loggers("fit", [ours]) == [ours]
    assert choose_loggers("fit", ours) == [ours]
    assert choose_loggers("validate", [ours, other]) == [other]
    for given in (None, True, False, [], [ours]):
        assert choose_loggers("test", given) is False


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("WandB", "trainer.logger: WandB cannot start (no route); run wandb login, set WANDB_MODE=offline, or omit"),
        (
            "MLflow",
            "trainer.logger: MLflow cannot start (no route); give the address of a server that runs, or a local",
        ),
        ("Trackio", "trainer.logger: Trackio cannot start (no route); log in by hf auth login for a Space, omit"),
    ],
)
def test_a_tracker_that_cannot_be_reached_ends_the_command_before_it_writes(
    fresh, kind, message, wandb, mlflow, trackio, capsys
):
    for call in (wandb[1], mlflow[0].get_experiment_by_name, trackio[1]):
        call.side_effect = OSError("no\nroute")
    assert main(["fit", "-c", "tiny.yaml", f"--trainer.logger+={kind}"]) == 2
    assert message in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_missing_package(fresh, monkeypatch, capsys):
    monkeypatch.setattr(tracker, "find_spec", lambda name: None)
    for kind in ("WandB", "MLflow", "Trackio"):
        assert main(["fit", "-c", "tiny.yaml", f"--trainer.logger+={kind}"]) == 2
        name = kind.lower()
        assert (
            f'{kind}: the package {name} is not installed; install it by pip install "lightning-xt[{name}]"'
            in capsys.readouterr().err
        )
    assert main(["fit", "-c", "tiny.yaml", "--trainer.logger+=WandB", "--trainer.logger.mode=of"]) == 2
    assert "expected one of 'online', 'offline', 'disabled', not 'of'" in capsys.readouterr().err


def test_a_run_with_trackers_resumes(fresh, wandb, mlflow, trackio):
    loggers = [f"--trainer.logger+={kind}" for kind in ("WandB", "MLflow", "Trackio")]
    assert main(["fit", "-c", "tiny.yaml", *loggers]) == 0
    assert main(["fit", "runs/tiny/0", "--resume", "--trainer.max_steps", "8"]) == 0
    assert main(["validate", "runs/tiny/0"]) == 0
    experiment, init = wandb
    assert [call.kwargs["id"] for call in init.call_args_list] == [None, "w1"]
    config = init.call_args.kwargs["config"]
    assert config["trainer.max_steps"] == 8 and config["model.decoder.attention.position"] == "Rotary"
    points = [(step, value) for call in experiment.log.call_args_list
              for name, value in call.args[0].items() if name == "val/bits_per_byte"
              for step in [call.args[0]["step"]]]  # fmt: skip
    assert [step for step, _ in points] == [4, 6, 8]
    steps = [call.args[0]["step"] for call in experiment.log.call_args_list if "train/loss" in call.args[0]]
    assert steps == list(range(1, 9))
    assert sum("samples/0" in call.args[0] for call in experiment.log.call_args_list) == 3
    assert [call.args[1] for call in trackio[0].log.call_args_list if "train/tokens" in call.args[0]] == [*range(1, 9)]
    # Those of every run are there too.
    assert {"metrics.csv", "trackers.json"} <= {path.name for path in Path("runs/tiny/0").iterdir()}
    assert list(Path("runs/tiny/0").glob("events.*"))
    assert len(yaml.safe_load(Path("runs/tiny/0/config.yaml").read_text())["trainer"]["logger"]) == 3
