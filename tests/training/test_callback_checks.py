"""Callbacks of Lightning and your own: refused with the way out, or written into a config that is read back."""

import csv
from pathlib import Path

import lightning.pytorch.callbacks
import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import BaseFinetuning
from tiny_run import read_rows

from lightning_xt.cli import main
from lightning_xt.commands.trainer.command_line import CommandLine
from lightning_xt.training.callback_checks import AVERAGES, REFUSED, check_callbacks
from lightning_xt.training.callbacks.exponential_average import ExponentialAverage
from lightning_xt.training.callbacks.non_finite import NonFinite
from lightning_xt.training.callbacks.throughput import Throughput
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.seq2seq import Seq2Seq

OPTIONS = {
    "EarlyStopping": {"monitor": "val/loss"},
    "GradientAccumulationScheduler": {"scheduling": {0: 2}},
    "LambdaCallback": {},
    "ModelPruning": {"pruning_fn": "l1_unstructured"},
    "OnExceptionCheckpoint": {"dirpath": "saved"},
    "StochasticWeightAveraging": {"swa_lrs": 0.1},
    "ThroughputMonitor": {"batch_size_fn": "own.size"},
}
ABSTRACT = {"BaseFinetuning", "BasePredictionWriter", "Callback", "Checkpoint", "ProgressBar", "WeightAveraging"}
# Its default is a function, which the gate of names refuses before.
NAMEABLE = sorted({*lightning.pytorch.callbacks.__all__} - ABSTRACT - {"BackboneFinetuning"})
OWN = """
import enum
import torch
from lightning.pytorch import Callback


class Kind(enum.Enum):
    fast = 1


class Plain(Callback):
    def __init__(self, kind=Kind.fast, sizes=(1, 2)):
        self.kind = kind


class Device(Callback):
    def __init__(self, device=torch.device("cpu")):
        self.device = device


class Type(Callback):
    def __init__(self, dtype=torch.float32):
        self.dtype = dtype


def size(batch):
    return len(batch)
"""


class StopError(Exception):
    pass


@pytest.fixture
def written(fresh, monkeypatch, capsys):
    """Return a function that returns the error of a config, else its callbacks as a run writes them."""
    (fresh / "own.py").write_text(OWN)
    found = []

    def stop(self):
        found.append(self._plain()["trainer"]["callbacks"])
        raise StopError

    monkeypatch.setattr(CommandLine, "instantiate_classes", stop)

    def write(callbacks):
        Path("callbacks.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}}))
        try:
            assert main(["fit", "-c", "tiny.yaml", "-c", "callbacks.yaml"]) == 2
        except StopError:
            return found[-1]
        return capsys.readouterr().err

    return write


@pytest.mark.parametrize("name", NAMEABLE)
def test_cases_r6_every_callback_is_read_back_or_refused(written, name):
    first = written([{"class_path": name, "init_args": OPTIONS.get(name, {})}])
    kind = getattr(lightning.pytorch.callbacks, name, None)
    if reason := (REFUSED | AVERAGES).get(kind):
        assert first == f"lightning-xt: error: trainer.callbacks: {name} {reason}\n"
    else:
        assert written(first) == first
        assert first[0]["class_path"].endswith(name)


def test_cases_r6_objects_that_no_config_holds(written, capsys):
    assert "--trainer.callbacks.device is cpu, an object that " in written([{"class_path": "own.Device"}])
    assert main(["fit", "-c", "tiny.yaml", "--trainer.callbacks+=own.Device"]) == 2
    assert "--trainer.callbacks.device is cpu, an object that config.yaml" in capsys.readouterr().err
    assert "could not be read back: torch.float32 is not imported" in written([{"class_path": "own.Type"}])
    first = written([{"class_path": "own.Plain"}])
    assert written(first) == first


def test_cases_r8_the_default_of_a_timer(written):
    assert written([{"class_path": "Timer"}])[0]["init_args"]["interval"] == "step"


@pytest.mark.parametrize("kind", REFUSED)
def test_cases_r4_r7_callbacks_are_refused_in_python_too(kind):
    child = type("Mine", (kind,), {})
    with pytest.raises(ValueError, match=r"trainer\.callbacks: Mine .*; "):
        check_callbacks([child.__new__(child)], None)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Timer", {"interval": "epoch"}),
        ("LearningRateMonitor", {"logging_interval": "epoch"}),
        ("ModelCheckpoint", {"every_n_epochs": 2}),
    ],
)
def test_cases_r4_callbacks_that_wait_for_epochs(name, options):
    callback = getattr(lightning.pytorch.callbacks, name)(**options)
    quiet = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    with pytest.raises(ValueError, match=rf"{name} has {next(iter(options))}.*no epochs; count steps there"):
        check_callbacks([callback], Trainer(max_epochs=-1, **quiet))
    check_callbacks([callback], Trainer(max_epochs=-1, limit_train_batches=3, **quiet))
    check_callbacks([callback], Trainer(max_epochs=2, **quiet))


def test_cases_r12_a_shipped_average_keeps_your_callbacks(fresh, monkeypatch):
    early = {"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss"}}
    Path("early.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [early]}}))
    trainers = []
    monkeypatch.setattr(CommandLine, "_run_subcommand", lambda self, _: trainers.append(self.trainer))
    configs = Path(__file__).parents[2] / "configs"
    ema = ["-c", str(configs / "trainer" / "ema.yaml")]
    for files in ([*ema], ["-c", "early.yaml", *ema], ["-c", "early.yaml", *ema, *ema]):
        assert main(["fit", "-c", "tiny.yaml", *files]) == 0
    names = [[type(each).__name__ for each in trainer.callbacks] for trainer in trainers]
    assert [each.count("EarlyStopping") for each in names] == [0, 1, 1]
    assert [each.count(ExponentialAverage.__name__) for each in names] == [1, 1, 1]
    # A list of callbacks would replace those of the files before it.
    assert not [file for file in configs.rglob("*.yaml") if "  callbacks:" in file.read_text()]


MONITOR = "--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor"
REFUSALS = [
    (f"{MONITOR} val/los", "unknown monitor of EarlyStopping 'val/los'; did you mean val/loss or train/loss?"),
    (f"{MONITOR} val/loss --trainer.limit_val_batches 0", "unknown monitor of EarlyStopping 'val/loss'"),
    (f"{MONITOR} val/loss --trainer.callbacks.mode up", "EarlyStopping: `mode` can be min, max, got up"),
    (
        "--trainer.callbacks+=ModelCheckpoint --trainer.callbacks.monitor a/b",
        "unknown monitor of ModelCheckpoint 'a/b'",
    ),
    (
        "--trainer.callbacks+=ModelCheckpoint --trainer.callbacks.monitor train/loss "
        "--trainer.callbacks.every_n_train_steps 4 --trainer.log_every_n_steps 6 --trainer.max_steps 9",
        "ModelCheckpoint looks at train/loss every 4 optimizer steps, but trainer.log_every_n_steps is 6, so that it "
        "is an older step's or unknown; set --trainer.log_every_n_steps 2",
    ),
    (
        f"{MONITOR} optim/grad_norm --trainer.log_every_n_steps 0 --trainer.accumulate_grad_batches 3",
        "EarlyStopping looks at optim/grad_norm every 4 optimizer steps, but trainer.log_every_n_steps is 0",
    ),
    ("--trainer.logger+=WandbLogger", "WandbLogger: Requirement 'wandb>=0.12.10' not met."),
    ("--trainer.logger WandbLogger", "WandbLogger: Requirement 'wandb>=0.12.10' not met."),
    ("--trainer.logger csv", "--trainer.logger: unknown Logger class 'csv'; there is CSVLogger, CometLogger"),
    ("--trainer.plugins+=XLACheckpointIO", "XLACheckpointIO: Requirement 'torch_xla>=1.13' not met."),
    (
        "--trainer.limit_train_batches 0.5",
        "trainer: When using an `IterableDataset`, `Trainer(limit_train_batches)` must",
    ),
    ("--trainer.accelerator tpu", "trainer: Requirement 'torch_xla>=1.13' not met."),
]


@pytest.mark.parametrize(("options", "part"), REFUSALS, ids=[options for options, _ in REFUSALS])
def test_cases_r10_a_refusal_of_lightning_is_a_sentence(options, part, fresh, capsys):
    assert main(["fit", "-c", "tiny.yaml", *options.split()]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lightning-xt: error: ") and part in error
    assert len(error.splitlines()) == 1
    assert not Path("runs").exists()


def test_cases_r10_a_metric_of_a_custom_part_may_be_monitored(fresh, capsys):
    (fresh / "own.py").write_text(
        "from lightning.pytorch import Callback\n\n\nclass Own(Callback):\n"
        "    def on_validation_epoch_end(self, trainer, pl_module):\n        pl_module.log('own/value', 1.0)\n"
    )
    early = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=own/value"]
    run = ["fit", "-c", "tiny.yaml", "--trainer.callbacks+=own.Own"]
    assert main([*run, *early]) == 0
    # It is found missing at the first validation only.
    early[1] += "s"
    assert main([*run, *early]) == 2
    assert "error: trainer: Early stopping conditioned on metric `own/values`" in capsys.readouterr().err


def test_cases_r10_the_metrics_that_may_be_monitored_are_those_that_are_logged(finished, finished_pairs):
    for run, model in ((finished / "runs/tiny/0", LanguageModel), (finished_pairs / "runs/pairs/0", Seq2Seq)):
        with (run / "metrics.csv").open() as file:
            logged = set(next(csv.reader(file))) - {"step"}
        # The limit of the machine is measured in long runs only.
        assert {*model.logged, *Throughput.logged, *NonFinite.logged} - logged <= {"speed/mfu"}
        assert logged <= {*model.logged, *Throughput.logged, *Throughput.totals, *NonFinite.logged}


def test_cases_r10_the_loggers_of_a_run_exist_before_callbacks_look(fresh, monkeypatch):
    monkeypatch.setattr("lightning.pytorch.accelerators.cpu._PSUTIL_AVAILABLE", True)
    monkeypatch.setattr("lightning.pytorch.callbacks.device_stats_monitor._PSUTIL_AVAILABLE", True)
    monkeypatch.setattr("lightning.pytorch.accelerators.cpu.get_cpu_stats", lambda: {"cpu_percent": 50.0})
    assert main(["fit", "-c", "tiny.yaml", "--trainer.callbacks+=DeviceStatsMonitor"]) == 0
    assert "cpu_percent" in Path("runs/tiny/0/metrics.csv").read_text()


def test_cases_n5_a_logger_is_added_to_those_of_the_run(fresh, capsys):
    logger = ["--trainer.logger+=CSVLogger", "--trainer.logger.save_dir=own"]
    assert main(["fit", "-c", "tiny.yaml", *logger]) == 0
    rows = [
        Path(file).read_text().count("\n")
        for file in ("runs/tiny/0/metrics.csv", "own/lightning_logs/version_0/metrics.csv")
    ]
    assert min(rows) > 6
    assert list(Path("runs/tiny/0").glob("events.*"))
    assert (
        main(["fit", "-c", "tiny.yaml", *logger, "--standard.metrics_file=null", "--standard.tensor_board=null"]) == 0
    )
    assert not [*Path("runs/tiny/1").glob("events.*"), *Path("runs/tiny/1").glob("metrics.csv")]
    assert Path("own/lightning_logs/version_1/metrics.csv").is_file()


@pytest.mark.parametrize("name", [kind.__name__ for kind in REFUSED if kind is not BaseFinetuning])
def test_cases_r4_a_callback_is_refused_before_its_options_are_parsed(name, fresh, capsys):
    Path("mine.yaml").write_text(f"trainer: {{callbacks: [{name}]}}\n")
    for flags in (["-c", "mine.yaml"], [f"--trainer.callbacks+={name}"], ["--trainer.callbacks", name]):
        assert main(["fit", "-c", "tiny.yaml", *flags]) == 2
        assert f"trainer.callbacks: {name} " in capsys.readouterr().err
    assert not Path("runs").exists()


def test_metrics_of_steps_may_be_monitored_where_they_are_logged(fresh):
    kept = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.monitor=train/loss"]
    kept += ["--trainer.callbacks.every_n_train_steps=4", "--trainer.callbacks.filename={step}"]
    kept += ["--trainer.callbacks.dirpath=kept", "--trainer.log_every_n_steps=2", "--trainer.max_steps=5"]
    # Validations of the last step only.
    early = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=train/loss", "--validate_every=null"]
    assert main(["fit", "-c", "tiny.yaml", *kept, *early]) == 0
    (state,) = (
        state
        for name, state in torch.load("kept/step=4.ckpt", weights_only=True)["callbacks"].items()
        if "train/loss" in name and "ModelCheckpoint" in name
    )
    losses = {row["step"]: row["train/loss"] for row in read_rows()}
    assert float(state["current_score"]) == float(losses["4"])
