"""Steps are counted alike in metrics.csv, TensorBoard, samples, checkpoints and on the console: the steps done."""

import re
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_run import load_weights, read_rows

from lightning_xt.cli import main
from lightning_xt.commands.trainer import cluster
from lightning_xt.training.callbacks.best_checkpoint import BestCheckpoint
from lightning_xt.training.optim.schedules.warmup_cosine import WarmupCosine
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
    # The last step is logged too.
    assert main([*RESUME, "9"]) == 0
    out = first + capsys.readouterr().out
    assert (
        list_steps("train/loss")
        == list_steps("speed/tokens_per_second")
        == list_steps("lr-AdamW/pg1")
        == [2, 4, 6, 8, 9]
    )
    assert list_steps("val/loss") == [3, 6, 9]
    console = re.findall(r"step (\d+)/\d+  (?:train/loss \S+  )?(val)?", out)
    assert [int(step) for step, validated in console if not validated] == [2, 4, 6, 8, 9]
    assert [int(step) for step, validated in console if validated] == [3, 6, 9]
    samples = re.findall(r"=== step (\d+) ===", Path(RUN, "samples.txt").read_text())
    assert [int(step) for step in samples] == [3, 6, 9]
    assert torch.load(f"{RUN}/checkpoints/last.ckpt", weights_only=True)["global_step"] == 9
    before, last = (row for row in read_rows() if row["train/loss"] and int(row["step"]) > 6)
    schedule = WarmupCosine(9, warmup_steps=2)
    assert [float(row["optim/lr"]) / 1e-3 for row in (before, last)] == pytest.approx([schedule(7), schedule(8)])
    assert all(before[name] != last[name] for name in ("train/loss", "optim/grad_norm", "speed/step_ms"))


STOP = """
from lightning.pytorch import Callback


class Stop(Callback):
    logged = ("own/step",)

    def on_train_batch_end(self, trainer, pl_module, *_):
        pl_module.log("own/step", float(trainer.global_step))
        trainer.should_stop |= trainer.global_step >= 3
"""


def test_a_trainer_that_should_stop_logs_no_step_again(fresh):
    options = ["--trainer.log_every_n_steps=2", "--trainer.max_steps=9", "--trainer.min_steps=5"]
    (fresh / "stops.py").write_text(STOP)
    assert main(["fit", "-c", "tiny.yaml", *options, "--trainer.callbacks+=stops.Stop"]) == 0
    assert list_steps("train/loss") == list_steps("own/step") == [2, 4, 6, 8, 9]
    assert list_steps("val/loss")[-2:] == [8, 9]


def test_a_run_that_logs_nothing_logs_at_no_step(fresh, monkeypatch):
    logged = []
    monkeypatch.setattr(LightningModule, "log", lambda self, name, *_, **__: logged.append(name))
    monkeypatch.setattr(BestCheckpoint, "on_validation_end", lambda *_: None)
    for every in (0, 4):
        options = [f"--trainer.log_every_n_steps={every}", "--trainer.max_steps=3", "--validate_every=null"]
        options += ["--trainer.callbacks+=DropoutSchedule"]
        assert main(["fit", "-c", "tiny.yaml", *options]) == 0
        names = {name for name in logged if not name.startswith("val/")}
        assert ({"train/loss", "optim/grad_norm", "optim/skipped_steps", "optim/dropout"} <= names) == bool(every)
        assert every or not names


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
