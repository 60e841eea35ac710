"""Steps are counted alike in metrics.csv, TensorBoard, samples, checkpoints and on the console: the steps done."""

import re
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_run import load_weights, read_rows

from lightning_xt.cli import main
from lightning_xt.commands.trainer import cluster
from lightning_xt.training.steps_done import StepsDone

RUN = "runs/tiny/0"
RESUME = ["fit", RUN, "--resume", "--trainer.max_steps"]


def list_steps(name):
    """Return the steps of a metric in metrics.csv, which are those of its curve in TensorBoard."""
    rows = [int(row["step"]) for row in read_rows() if row[name]]
    assert [event.step for event in EventAccumulator(RUN).Reload().Scalars(name)] == rows
    return rows


@pytest.mark.parametrize("batches", [1, 3])
def test_cases_n9_steps_are_counted_alike(batches, fresh, capsys):
    options = [f"--trainer.accumulate_grad_batches={batches}", "--trainer.log_every_n_steps=2", "--validate_every=3"]
    options += ["--trainer.callbacks+=LearningRateMonitor", "--trainer.callbacks.logging_interval=step"]
    options += ["--trainer.enable_progress_bar=true"]
    assert main(["fit", "-c", "tiny.yaml", *options, "--checkpoint_every=3", "--trainer.max_steps=6"]) == 0
    first = capsys.readouterr().out
    assert main([*RESUME, "10"]) == 0
    out = first + capsys.readouterr().out
    assert (
        list_steps("train/loss")
        == list_steps("speed/tokens_per_second")
        == list_steps("lr-AdamW/pg1")
        == [2, 4, 6, 8, 10]
    )
    assert list_steps("val/loss") == [3, 6, 9, 10]
    console = re.findall(r"step (\d+)/\d+  (?:train/loss \S+  )?(val)?", out)
    assert [int(step) for step, validated in console if not validated] == [2, 4, 6, 8, 10]
    assert [int(step) for step, validated in console if validated] == [3, 6, 9, 10]
    samples = re.findall(r"=== step (\d+) ===", Path(RUN, "samples.txt").read_text())
    assert [int(step) for step in samples] == [3, 6, 9, 10]
    assert torch.load(f"{RUN}/checkpoints/last.ckpt", weights_only=True)["global_step"] == 10


def test_cases_n9_a_run_that_was_begun_before_resumes(fresh, monkeypatch):
    whole = ["fit", "-c", "tiny.yaml", "--model.schedule=null", "--trainer.max_steps=8"]
    assert main([*whole, "--name=whole"]) == 0
    with monkeypatch.context() as before:
        # Its steps began at 0.
        before.setattr(cluster, "StepsDone", StepsDone.__mro__[1])
        assert main([*whole, "--trainer.max_steps=5"]) == 0
    # Totals of a run, which that version did not have, stand at the steps done.
    assert [int(row["step"]) for row in read_rows() if row["train/loss"]] == [0, 1, 2, 3, 4]
    assert main([*RESUME, "8"]) == 0
    assert [int(row["step"]) for row in read_rows() if row["train/loss"]] == [0, 1, 2, 3, 4, 6, 7, 8]
    assert list_steps("train/loss") == [0, 1, 2, 3, 4, 6, 7, 8]
    resumed, uninterrupted = load_weights(), load_weights("runs/whole/0")
    assert all(torch.equal(value, resumed[name]) for name, value in uninterrupted.items())
    for row, other in zip(read_rows()[-3:], read_rows("runs/whole/0")[-3:], strict=True):
        assert (row["step"], row["train/loss"], row["optim/lr"]) == (
            other["step"],
            other["train/loss"],
            other["optim/lr"],
        )
