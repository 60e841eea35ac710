"""Runs that are killed, preempted, and killed while they save, end as uninterrupted runs do."""

import os
import re
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
import warm
from chaos import kills, preemptions, saves
from chaos.compare import find_differences, load
from chaos.runs import RUN, Setting
from lightning.pytorch import Callback, Trainer
from tiny_run import read_rows

from lightning_xt.cli import main
from lightning_xt.data.text.text_files import TextFiles
from lightning_xt.system.stopping import FORWARDED, Stopped, StopSignals, find_installed_signals
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
    logged = {*range(5, STEPS, 5), *range(12, STEPS, 12), STEPS}
    assert len((other / "metrics.csv").read_text().splitlines()) == len(logged) + 1
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
        "metrics.csv/20/train/loss",
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


@pytest.mark.parametrize(("options", "code"), [(["--standard.last_checkpoint=null"], 143), ([], 75)])
def test_only_a_run_with_a_last_checkpoint_is_queued_again(options, code, fresh, monkeypatch, capsys):
    monkeypatch.setattr(LanguageModel, "on_after_backward", lambda self: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["fit", "-c", "tiny.yaml", *options]) == code
    error = capsys.readouterr().err
    assert "stopped by SIGTERM after step 1; " in error
    assert ("--resume" in error) == (code == 75) == Path("runs/tiny/0/checkpoints/last.ckpt").is_file()


def test_what_the_user_interrupts_ends_with_130(trained, monkeypatch, capsys):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(TextFiles, "setup", interrupt)
    # Lightning ignores the signal from then on.
    before = signal.getsignal(signal.SIGINT)
    try:
        assert main(["validate", "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "last"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err.splitlines()[-1] == "lightning-xt: interrupted"
    monkeypatch.setattr("lightning_xt.commands.info.run", interrupt)
    assert main(["info", "runs/tiny"]) == 130
    assert capsys.readouterr().err == "lightning-xt: interrupted\n"


LONG = ["--trainer.max_steps", "1000000", "--validate_every", "1000000", "--checkpoint_every", "20"]
LAST = Path("runs/tiny/0/checkpoints/last.ckpt")


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


@pytest.mark.parametrize("processes", [1, 2])
def test_cases_n1_ctrl_c_finishes_the_step_and_saves_once(processes, fresh):
    several = ["--trainer.devices", "2", "--trainer.strategy", "ddp"] if processes > 1 else []
    run = warm.Command(["fit", "-c", "tiny.yaml", *LONG, *several], stderr="errors.txt", session=True)
    wait_until(LAST.is_file)
    # As a terminal does: to all processes of the group.
    os.killpg(run.pid, signal.SIGINT)
    assert run.wait(60) == 130
    said = Path("errors.txt").read_text()
    assert said.count("press it again to leave at once") == 1 and "Traceback" not in said
    found = re.search(r"interrupted after step (\d+); resume with lightning-xt fit runs/tiny/0 --resume\n", said)
    step = torch.load(LAST, weights_only=True)["global_step"]
    assert int(found[1]) == step >= 20
    if processes == 1:
        resume = ["fit", "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "last", "--trainer.max_steps", str(step + 2)]
        assert main([*resume, "--validate_every", "null"]) == 0
        assert [int(row["step"]) for row in read_rows()] == list(range(1, step + 3))


def test_cases_n1_a_second_ctrl_c_leaves_at_once(fresh):
    slow = "import time\nfrom lightning.pytorch import Callback\n\n\nclass Slow(Callback):\n"
    slow += "    def on_train_batch_end(self, trainer, *args):\n        if trainer.global_step == 4:\n"
    slow += "            open('slow', 'w').close()\n            for _ in range(600):\n                time.sleep(0.1)\n"
    Path("slow_steps.py").write_text(slow)
    options = [*LONG[:-1], "3", "--trainer.callbacks+=slow_steps.Slow"]
    run = warm.Command(["fit", "-c", "tiny.yaml", *options], stderr="errors.txt")
    wait_until(Path("slow").is_file)
    run.send_signal(signal.SIGINT)
    wait_until(lambda: "press it again" in Path("errors.txt").read_text())
    # A launcher forwards the first one.
    run.send_signal(signal.SIGINT)
    time.sleep(2 * FORWARDED)
    assert run.poll() is None
    run.send_signal(signal.SIGINT)
    assert run.wait(5) == 130
    way = "interrupted at once; last.ckpt is of step 3; resume with lightning-xt fit runs/tiny/0 --resume"
    assert Path("errors.txt").read_text().splitlines()[-1] == f"lightning-xt: {way}"
    assert torch.load(LAST, weights_only=True)["global_step"] == 3


def test_cases_n1_before_the_first_step_nothing_is_promised(fresh, monkeypatch, capsys):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(TextFiles, "prepare_data", lambda self: os.kill(os.getpid(), signal.SIGINT))
    assert main(["fit", "-c", "tiny.yaml"]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "lightning-xt: fit was interrupted; run the command again"
    assert not Path("runs").exists()
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


def test_cases_n1_an_ignored_ctrl_c_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopSignals("fit", 75).install(signal.SIGINT):
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_cases_s10_further_signals_change_no_exit_code(number, fresh):
    run = warm.Command(["fit", "-c", "tiny.yaml", *LONG], stderr="errors.txt")
    wait_until(LAST.is_file)
    # All through the stop, the closing sentence and the end of Python.
    while run.poll() is None:
        run.send_signal(number)
        time.sleep(0.001)
    assert run.wait() == 75
    assert f"stopped by {number.name} after step" in Path("errors.txt").read_text()


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
