"""Everything that a command gives its Trainer is in its config, and can be switched off there."""

import re
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
import yaml

from lightning_xt.cli import main
from lightning_xt.commands.trainer.command_line import CommandLine
from lightning_xt.commands.trainer.trainer_options import CALLBACKS, ON_REQUEST


@pytest.fixture
def prepare(fresh, monkeypatch, capsys):
    """Return the Trainer that fit would run with some options, and the config that it shows."""

    def build(*options):
        made = Mock()
        monkeypatch.setattr(CommandLine, "_run_subcommand", lambda line, command: made(line.trainer, line.model))
        assert main(["fit", "-c", "tiny.yaml", *options]) == 0
        trainer, model = made.call_args.args
        assert main(["fit", "-c", "tiny.yaml", *options, "--print_config"]) == 0
        return trainer, model, yaml.safe_load(capsys.readouterr().out)

    return build


def list_parts(trainer, model):
    model.trainer = trainer
    given = [*trainer.callbacks, *model.configure_callbacks(), trainer.strategy.checkpoint_io]
    return {type(each).__name__ for each in given}


def test_the_config_shows_all_that_runs(prepare):
    trainer, model, config = prepare(*(f"--{name}={CALLBACKS[name].__name__}" for name in ON_REQUEST))
    shown = set(re.findall(r"\w+(?=\n|$)", yaml.safe_dump(config["standard"])))
    shown |= {config[name]["class_path"].rpartition(".")[2] for name in CALLBACKS}
    running = list_parts(trainer, model)
    assert running <= shown
    assert {"ExactResume", "RestoreTrainedWeights", "BestCheckpoint", "AtomicCheckpointIO", "NonFinite"} <= running


def test_each_is_switched_off_by_null(prepare):
    trainer, model, config = prepare()
    assert all(config[name] is None for name in ON_REQUEST)
    names = [name for name in config["standard"] if name not in ("tensor_board", "metrics_file")]
    before = list_parts(trainer, model)
    off = [*(f"--standard.{name}" for name in names), *(f"--{name}" for name in CALLBACKS)]
    trainer, model, config = prepare(*(f"{option}=null" for option in off))
    assert config["standard"] | dict.fromkeys(names) == config["standard"]
    assert config | dict.fromkeys(CALLBACKS) == config
    assert list_parts(trainer, model) == {"TorchCheckpointIO"}
    assert len(before) > 12
    Path("off.yaml").write_text("sample_text: null\nnon_finite: null\n")
    trainer, model, config = prepare("-c", "off.yaml")
    assert list_parts(trainer, model) == before - {"SampleText", "NonFinite"}


def test_a_run_without_loggers_and_speed(fresh):
    off = [f"--standard.{name}=null" for name in ("tensor_board", "throughput", "best_checkpoint")]
    assert main(["fit", "-c", "tiny.yaml", *off]) == 0
    run = Path("runs/tiny/0")
    assert {path.name for path in run.iterdir()} == {"config.yaml", "metrics.csv", "samples.txt", "checkpoints"}
    assert "speed/tokens_per_second" not in (run / "metrics.csv").read_text()
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["last.ckpt"]
    assert yaml.safe_load((run / "config.yaml").read_text())["standard"]["throughput"] is None


def test_one_is_replaced(prepare):
    trainer, model, _ = prepare("--standard.progress_bar", "TQDMProgressBar", "--trainer.enable_progress_bar=true")
    assert "TQDMProgressBar" in list_parts(trainer, model)
    assert "StepProgressBar" not in list_parts(trainer, model)


def test_cases_r16_a_trial_has_the_schedule_of_the_whole_run(trained, monkeypatch, capsys):
    rates = []
    monkeypatch.setattr(
        CommandLine, "after_fit", lambda line: rates.append(line.trainer.optimizers[0].param_groups[0]["lr"])
    )
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    whole = ["fit", "-c", "tiny.yaml", "--trainer.max_steps", "100", "--model.schedule.warmup_steps", "50"]
    for batches, options in ((1, []), (3, []), (3, ["--init_from", "runs/tiny/0"])):
        assert main([*whole, f"--trainer.fast_dev_run={batches}", *options]) == 0
        # A linear warm-up from 1 / 50.
        assert rates[-1] == pytest.approx(1e-3 * (batches + 1) / 50)
    assert main(["fit", "-c", "runs/tiny/0/config.yaml", "--ckpt_path=last", "--trainer.fast_dev_run=true"]) == 2
    assert "fast_dev_run is true, which tries first batches and resumes no run;" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


@pytest.mark.parametrize(
    ("name", "built", "reason"),
    [
        ("gpu", True, "finds none on this machine"),
        ("cuda", False, "is built without CUDA (https://pytorch.org/get-started has others)"),
        ("mps", False, "finds none on this machine"),
    ],
)
def test_a_machine_without_a_gpu_says_so(name, built, reason, fresh, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: built)
    assert main(["fit", "-c", "tiny.yaml", f"--trainer.accelerator={name}"]) == 2
    message = capsys.readouterr().err
    assert f"--trainer.accelerator {name} needs a GPU, but torch" in message
    assert f"{reason}; omit it, or set --trainer.accelerator cpu" in message
