"""Runs that are killed, preempted, and killed while they save, end as uninterrupted runs do."""

import os
import signal
from collections import Counter
from pathlib import Path

import pytest
import torch
from chaos import kills, preemptions, saves
from chaos.compare import find_differences, load
from chaos.runs import RUN, Setting
from lightning.pytorch import Callback, Trainer

from lightning_xt.cli import main
from lightning_xt.data.text.text_files import TextFiles
from lightning_xt.system.stopping import Stopped, StopSignals, find_installed_signals
from lightning_xt.training.callbacks.preemption import read_owed_validation, take_over_signals
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.step_boundaries import is_validation_due

STEPS = 48
SLICE = saves.SETTING
"""Setting that the default tests disturb in every way and run once without a signal."""


def test_each_choice_is_made_in_half_of_the_settings():
    assert len(set(kills.SETTINGS)) == 8
    for name in ("pairs", "accumulate", "processes", "average", "at_epochs_end"):
        assert set(Counter(getattr(each, name) for each in kills.SETTINGS).values()) == {4}
    # A corpus in memory has no workers.
    assert Counter(each.workers for each in kills.SETTINGS if not each.pairs) == {0: 2, 2: 2}


def test_a_run_that_is_disturbed_ends_as_if_nothing_had_been(tmp_path):
    planned = kills.make_plans(SLICE, 2, STEPS, "slice")
    assert kills.check(SLICE, tmp_path, planned[1:], STEPS)[1] == []
    assert saves.check(tmp_path, saves.make_plans(1, STEPS, "slice"), STEPS) == (1, [])
    # Validations with which an epoch ends, and the second with which the run does.
    stop = {"moment": "validation", "signal": "SIGTERM", "target": 0, "delay": 0.0, "seed": 0}
    assert preemptions.check(SLICE, tmp_path, [{**stop, "step": step} for step in (23, STEPS)], STEPS) == (2, [])
    whole, other = tmp_path / "whole" / RUN, tmp_path / "stopped" / RUN
    assert load(other / "checkpoints/last.ckpt")["TextFiles"]["samples_seen"] == STEPS * 4
    assert len((other / "metrics.csv").read_text().splitlines()) == STEPS + 1
    # Each difference is reported by name.
    changed = load(other / "checkpoints/last.ckpt")
    changed["state_dict"]["decoder.token_embedding.weight"][0, 0] += 1e-7
    torch.save(changed, other / "checkpoints/last.ckpt")
    lines = (other / "metrics.csv").read_text().splitlines()
    cells = lines[5].split(",")
    cells[lines[0].split(",").index("train/loss")] += "1"
    (other / "metrics.csv").write_text("\n".join([*lines[:5], ",".join(cells), *lines[6:]]) + "\n")
    with (other / "samples.txt").open("a") as file:
        file.write("=== step 48 ===\n")
    assert [line.split(":")[0] for line in find_differences(whole, other)] == [
        "checkpoints/last.ckpt/state_dict/decoder.token_embedding.weight",
        "metrics.csv/4/train/loss",
        "samples.txt",
    ]


def test_two_processes_stop_together_when_one_gets_a_signal(tmp_path):
    setting = Setting(pairs=False, workers=0, accumulate=2, processes=2, average=False)
    plan = {"moment": "step", "step": 9, "signal": "SIGUSR1", "target": 1, "delay": 0.02, "seed": 0}
    assert preemptions.check(setting, tmp_path, [plan], 16) == (1, [])


@pytest.mark.slow
@pytest.mark.parametrize("setting", kills.SETTINGS, ids=str)
def test_every_setting_is_killed(setting, tmp_path):
    assert kills.check(setting, tmp_path, kills.make_plans(setting, 10, 240, str(setting)), 240)[1] == []


@pytest.mark.slow
@pytest.mark.parametrize("setting", preemptions.SETTINGS, ids=str)
def test_every_setting_is_preempted(setting, tmp_path):
    planned = preemptions.make_plans(setting, 10, 240, str(setting))
    assert preemptions.check(setting, tmp_path, planned, 240) == (10, [])


@pytest.mark.slow
def test_a_run_is_killed_while_it_saves(tmp_path):
    assert saves.check(tmp_path, saves.make_plans(15, 240, "slow"), 240) == (15, [])


def test_a_signal_before_training_leaves_nothing(fresh, monkeypatch, capsys):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(TextFiles, "prepare_data", lambda self: os.kill(os.getpid(), signal.SIGUSR1))
    assert main(["fit", "-c", "tiny.yaml"]) == 75
    assert "fit was stopped by SIGUSR1; run the command again" in capsys.readouterr().err
    assert not Path("runs").exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_run_that_gets_a_signal_before_its_first_step_has_nothing_to_resume(fresh, monkeypatch, capsys):
    def signal_first(self, load=TextFiles.train_dataloader):
        # Signals wait as during the start of several processes.
        find_installed_signals().waits = True
        os.kill(os.getpid(), signal.SIGTERM)
        return load(self)

    monkeypatch.setattr(TextFiles, "train_dataloader", signal_first)
    assert main(["fit", "-c", "tiny.yaml"]) == 75
    assert "stopped by SIGTERM before its first step; run the command again" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_signal_that_was_remembered_for_nobody_ends_the_run(fresh):
    signals = StopSignals("fit", 75, waits=True)
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    with signals.install(signal.SIGTERM):
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped, match="143") as stopped:
            take_over_signals(Trainer(accelerator="cpu", **quiet))
    assert stopped.value.sentence == "fit was stopped by SIGTERM; run the command again"


def test_other_commands_end_at_once(trained, monkeypatch, capsys):
    monkeypatch.setattr(TextFiles, "setup", lambda self, stage: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["validate", "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "last"]) == 143
    assert "validate was stopped by SIGTERM; run the command again" in capsys.readouterr().err


def test_a_signal_that_waits_is_remembered_and_its_first_name_kept():
    signals = StopSignals("fit", 75, waits=True)
    with signals.install(signal.SIGTERM, signal.SIGUSR1):
        assert find_installed_signals() is signals
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == "SIGUSR1"
        signals.waits = False
        with pytest.raises(Stopped, match="75"):
            os.kill(os.getpid(), signal.SIGTERM)
    assert find_installed_signals() is None


def test_a_process_that_was_forked_leaves_the_signal_to_the_other():
    signals = StopSignals("fit", 75)
    with signals.install(signal.SIGUSR1):
        child = os.fork()
        if not child:
            os.kill(os.getpid(), signal.SIGUSR1)
            os._exit(3 if signals.received is None else 4)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


def test_a_run_that_is_not_saved_cannot_be_resumed(fresh, monkeypatch, capsys):
    options = ["fit", "-c", "tiny.yaml", "--trainer.enable_checkpointing", "false"]
    assert main(options) == 0
    assert not list(Path("runs").rglob("*.ckpt"))
    step = TextFiles.train_dataloader
    monkeypatch.setattr(TextFiles, "train_dataloader", lambda self: [os.kill(os.getpid(), 15), step(self)][1])
    assert main(options) == 143
    assert "fit was stopped by SIGTERM; run the command again" in capsys.readouterr().err


def test_what_the_user_interrupts_ends_with_130(fresh, monkeypatch, capsys):
    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(TextFiles, "train_dataloader", interrupt)
    # Lightning ignores the signal from then on.
    before = signal.getsignal(signal.SIGINT)
    try:
        assert main(["fit", "-c", "tiny.yaml"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert "lightning-xt: interrupted; resume the run with --ckpt_path last" in capsys.readouterr().err


@pytest.mark.parametrize("callbacks", [None, [], {}, {"Preemption": None}, {"Preemption": {"owed": None}}])
def test_a_checkpoint_may_owe_nothing(callbacks):
    assert read_owed_validation({"callbacks": callbacks}) is None
    assert read_owed_validation({"callbacks": {"Preemption": {"owed": {"train/loss": 1.0}}}}) == {"train/loss": 1.0}


def test_a_stop_that_must_wait_is_not_a_validation(fresh):
    class Asks(Callback):
        def on_train_batch_end(self, trainer, *args):
            trainer.should_stop = True
            found.append((trainer.global_step, is_validation_due(trainer)))

    found = []
    data = TextFiles(path="corpus.txt", seq_len=8, batch_size=2, eval_batch_size=4)
    model = LanguageModel.from_config({"decoder": {"dim": 8, "depth": 1, "attention": {"heads": 2}}, "schedule": None})
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    steps = {"max_steps": 4, "min_steps": 3, "val_check_interval": 100, "check_val_every_n_epoch": None}
    trainer = Trainer(callbacks=[Asks()], accelerator="cpu", devices=1, **steps, **quiet)
    trainer.fit(model, data)
    # With a minimum of steps Lightning requires an epoch too, and these data have no epochs.
    assert found == [(step, False) for step in (1, 2, 3, 4)]
