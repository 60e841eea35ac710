"""Configs for debugging: a few checked steps, one batch again and again, and a profile."""

import gzip
import json
from pathlib import Path

import pytest
import tiny_run
import torch

from lightning_xt.cli import main
from lightning_xt.nn.activations.gelu import GELU
from lightning_xt.training.callbacks.step_profiler import StepProfiler

TINY = ["fit", "-c", "tiny.yaml", "--model.decoder.dropout=0"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_run.write_inputs(tmp_path)
    return tmp_path


def test_debug_shows_every_loss_and_leaves_nothing(folder, capsys):
    assert main([*TINY, "-c", "trainer/debug.yaml", "--trainer.enable_progress_bar=true"]) == 0
    shown = capsys.readouterr().out
    assert [f"step {step}/10  train/loss" in shown for step in range(1, 12)] == [True] * 10 + [False]
    assert {path.name for path in folder.iterdir()} == {"corpus.txt", "prompts.txt", "tiny.yaml"}


def test_debug_names_the_operation_whose_gradient_becomes_nan(monkeypatch):
    monkeypatch.setattr(GELU, "forward", lambda self, x: (x * 0).sqrt())
    with (
        pytest.warns(UserWarning, match="Error detected in SqrtBackward0"),
        pytest.raises(RuntimeError, match=r"SqrtBackward0.* returned nan"),
    ):
        main([*TINY, "-c", "trainer/debug.yaml"])


def test_overfit_brings_the_loss_to_nearly_nothing(folder):
    small = ["--model.decoder.dim=32", "--model.decoder.attention.heads=2", "--model.optimizer.lr=5e-3"]
    assert main([*TINY, "-c", "trainer/overfit.yaml", *small, "--trainer.max_steps=100"]) == 0
    losses = [float(row["train/loss"]) for row in tiny_run.read_rows() if row["train/loss"]]
    assert losses[0] > 1
    assert losses[-1] < 0.15
    assert not list(folder.glob("runs/tiny/0/checkpoints/*"))


def test_profile_writes_a_table_and_a_trace_into_the_run(folder, capsys):
    assert main([*TINY, "-c", "trainer/profile.yaml", "--trainer.max_steps=30"]) == 0
    run, shown = folder / "runs/tiny/0", capsys.readouterr().out
    title, head, *lines = (run / "profile.txt").read_text().splitlines()
    assert title.startswith("profile: 3 steps, each ") and title.endswith(" ms on the CPU, by operation")
    assert head.split() == ["ms", "a", "step", "%", "calls", "operation"]
    times = [float(line.split()[0]) for line in lines]
    assert len(lines) == 15 and times == sorted(times, reverse=True)
    assert "\n".join([title, head, *lines]) in shown
    assert "trace:  runs/tiny/0/trace.json.gz" in shown
    names = {
        event.get("name") for event in json.loads(gzip.decompress((run / "trace.json.gz").read_bytes()))["traceEvents"]
    }
    # Two warm up: five are skipped, and three profiled.
    assert {name for name in names if str(name).startswith("ProfilerStep")} == {f"ProfilerStep#{n}" for n in (5, 6, 7)}
    assert tiny_run.read_rows()[-1]["step"] == "8"
    # Without a checkpoint there is nothing to generate with.
    assert "generate" not in shown


def test_a_run_that_ends_before_its_profile_says_so(caplog):
    assert main([*TINY, "-c", "trainer/profile.yaml"]) == 0
    assert "ended after 6 steps, before the 8 of skip and steps; nothing was profiled" in caplog.text
    assert not Path("runs/tiny/0/profile.txt").exists()


@pytest.mark.parametrize("option", ["skip", "steps", "rows"])
def test_a_profiler_refuses(option):
    with pytest.raises(ValueError, match=f"StepProfiler has {option} 0, which must be at least 1"):
        StepProfiler(**{option: 0})


def test_an_error_stops_the_profiler(monkeypatch):
    def fail(self, x):
        raise RuntimeError("broken")

    monkeypatch.setattr(GELU, "forward", fail)
    with pytest.raises(RuntimeError, match="broken"):
        main([*TINY, "-c", "trainer/profile.yaml"])
    assert not torch.autograd._profiler_enabled()
