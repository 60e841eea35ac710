"""Processes of ablate: speeds by turns, runs at the same time, and the end of all with the first process."""

import re
import signal
import subprocess
import sys
from multiprocessing.connection import Listener
from types import SimpleNamespace

import pytest
from scripted_runner import ENVIRONMENT, die, fail, lack_memory, leave, meet

from lightning_xt.commands.ablation import process_runner
from lightning_xt.commands.ablation.child_process import ChildProcess, Place, RunError
from lightning_xt.commands.ablation.child_training import train_run
from lightning_xt.commands.ablation.paced_steps import FACTS, hash_files
from lightning_xt.commands.ablation.process_runner import SLICE, BaseError, Job, ProcessRunner
from lightning_xt.commands.ablation.study_plan import Run
from lightning_xt.commands.trainer import run_trainer
from lightning_xt.data.pairs.copy_task import CopyTask
from lightning_xt.data.probes.mqar import MQAR
from lightning_xt.data.text.text_files import TextFiles
from lightning_xt.training.callbacks.throughput import Throughput


class TimedProcess:
    """Stands for a process that trains in turns; the first steps of each take longer.

    Args:
        target: not used.
        arguments: options of `fit`, of which the first is the name of what is trained.
        place: not used.
    """

    begun, log, deaths = [], [], {}
    seconds = {"base": 0.08, "slow": 0.12}

    def __init__(self, target, arguments, place):
        self.name, self.steps, self.is_ended = arguments[0][0], 0, False
        self.begun.append(self)

    def ask(self, request):
        if request == FACTS:
            return {"parameters": 7}
        if self.deaths.get(self.name, 9**9) <= self.steps:
            raise RunError("killed", may_pass=True)
        seconds = sum(self.seconds[self.name] * (1.2 if self.steps + n < 20 else 1) for n in range(request))
        self.steps += request
        self.log.append((self.name, request))
        return seconds

    def end(self):
        self.is_ended = True


@pytest.fixture
def timed(monkeypatch):
    """Let processes only say how long they would take; return their class."""
    monkeypatch.setattr(process_runner, "ChildProcess", TimedProcess)
    for name, value in (("begun", []), ("log", []), ("deaths", {})):
        monkeypatch.setattr(TimedProcess, name, value)
    return TimedProcess


def test_a_time_ratio_is_of_two_processes_of_the_same_age(timed):
    runner = ProcessRunner(1, 1)
    for name, ratio in (("slow", 1.5), ("base", 1.0)):
        timed.log.clear()
        costs = runner.measure(["base"], [name])
        assert costs["time_ratios"] == pytest.approx([ratio] * 5) and costs["time_ratio"] == pytest.approx(ratio)
        # Without the steps of the warm-up, which take longer.
        assert costs["seconds_per_step"] == pytest.approx(timed.seconds[name]) and costs["parameters"] == 7
        # In turns, each going first in half of them.
        turns = [log[0] for log in timed.log[-8:]]
        assert name == "base" or turns == ["base", "slow", "slow", "base"] * 2
    # New ones for each measurement, and none stays.
    assert [each.name for each in timed.begun] == ["base", "slow", "base", "base"]
    assert all(each.is_ended for each in timed.begun) and len({each.steps for each in timed.begun}) == 1


def test_a_long_warm_up_ends_early(timed, monkeypatch):
    monkeypatch.setitem(timed.seconds, "slow", 60.0)
    ProcessRunner(1, 1).measure(["base"], ["slow"])
    assert {each.steps for each in timed.begun} == {2 + SLICE + 10 * SLICE}


@pytest.mark.parametrize("steps", [0, 30])
def test_a_death_of_the_base_is_not_blamed_on_a_variant(timed, steps):
    timed.deaths["base"] = steps
    with pytest.raises(BaseError) as caught:
        ProcessRunner(1, 1).measure(["base"], ["slow"])
    assert caught.value.may_pass and all(each.is_ended for each in timed.begun)
    timed.deaths = {"slow": steps}
    with pytest.raises(RunError) as caught:
        ProcessRunner(1, 1).measure(["base"], ["slow"])
    assert not isinstance(caught.value, BaseError) and all(each.is_ended for each in timed.begun)


def test_workers_train_at_the_same_time(tmp_path, monkeypatch):
    monkeypatch.setattr(process_runner, "train_run", meet)
    files = [str(tmp_path / name) for name in ("one", "two")]
    runs = [Run(name, 0) for name in ("one", "two")]
    jobs = [Job(run, mine, other) for run, mine, other in zip(runs, files, files[::-1], strict=True)]
    found = dict(ProcessRunner(2, 1).train(jobs))
    assert found == {run: {"metrics": file} for run, file in zip(runs, files, strict=True)}


@pytest.mark.parametrize(
    ("metrics", "sentence"),
    [
        ({"val/loss": 1.0, "val/perplexity": 2.7}, "; it has val/loss, val/perplexity"),
        ({}, "; it has none at all"),
        ({"val/accuracy": 0.5, "val/loss": float("nan")}, "val/loss is nan after 3 steps"),
    ],
)
def test_a_run_without_its_metric_says_which_it_has(monkeypatch, metrics, sentence):
    trainer = SimpleNamespace(
        callback_metrics=metrics, callbacks=[Throughput()], global_step=3, max_steps=3, datamodule=None
    )
    monkeypatch.setattr(run_trainer, "train", lambda *args: SimpleNamespace(trainer=trainer))
    with pytest.raises(RunError, match=re.escape(sentence)):
        train_run(None, [], ["val/accuracy"])


def test_a_run_that_ends_early_fails(monkeypatch):
    trainer = SimpleNamespace(
        callback_metrics={}, callbacks=[Throughput()], global_step=3, max_steps=9, datamodule=None
    )
    monkeypatch.setattr(run_trainer, "train", lambda *args: SimpleNamespace(trainer=trainer))
    with pytest.raises(RunError, match="it ended after 3 of its 9 steps; omit what ends it"):
        train_run(None, [])


def test_the_hash_is_of_data_that_seeds_share(tmp_path):
    (tmp_path / "corpus.txt").write_text("to be or not to be " * 99)
    files = TextFiles(path=str(tmp_path / "corpus.txt"), seq_len=8)
    files.prepare_data()
    assert hash_files(files) == files.content_hash
    assert [hash_files(each) for each in (MQAR(seed=3), CopyTask(seed=3), None)] == [None] * 3


def test_a_lack_of_memory_may_pass():
    # An error of torch, wrapped as commands do.
    for target, may_pass in ((lack_memory, True), (fail, False), (die, True), (leave, False)):
        child = ChildProcess(target, (), Place(1))
        with pytest.raises(RunError) as caught:
            child.receive()
        child.end()
        assert caught.value.may_pass == may_pass


PARENT = """
import sys, time
from scripted_runner import call
from lightning_xt.commands.ablation import child_process
child_process.PRELOADED = "json"
if __name__ == "__main__":
    child = child_process.ChildProcess(call, (sys.argv[1],), child_process.Place(1))
    child.receive()
"""


def test_processes_end_with_a_killed_first_one(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    with Listener(str(tmp_path / "line")) as listener:
        command = [sys.executable, str(tmp_path / "parent.py"), listener.address]
        with subprocess.Popen(command, env=ENVIRONMENT) as parent, listener.accept() as line:
            assert line.recv() == "here" and not line.poll(0.2)
            parent.send_signal(signal.SIGKILL)
            assert line.poll(30)
            with pytest.raises(EOFError):
                line.recv()
