"""Processes of a run have the same options and data, and an error of one alone is printed."""

import contextlib
import io
import os
import socket
import tempfile
import time

import pytest
import torch
from processes_run import run_in_processes

from lightning_xt.cli import main
from lightning_xt.system import shared_errors
from lightning_xt.training.strategies import same_processes


@pytest.mark.parametrize(
    ("option", "rule"),
    [
        (
            "--trainer.max_steps=7",
            "--trainer.max_steps is 6 in process 0 and 7 in process 1; start all of them with one",
        ),
        pytest.param(
            "--data.batch_size=3", "--data.batch_size is 2 in process 0 and 3 in process 1", marks=pytest.mark.slow
        ),
        ("--data.path=other.txt", "the hash of the data is "),
        ("--data.path=same.txt", None),
    ],
)
def test_cases_s9_processes_that_differ_are_refused(option, rule, fresh):
    text = (fresh / "corpus.txt").read_text()
    (fresh / "same.txt").write_text(text)
    (fresh / "other.txt").write_text(text.replace("quick", "slow"))

    def fit():
        own = [option] if os.environ["LOCAL_RANK"] == "1" else []
        with contextlib.redirect_stderr(io.StringIO()) as errors, contextlib.redirect_stdout(io.StringIO()):
            code = main(["fit", "-c", "tiny.yaml", "--trainer.devices=2", "--trainer.strategy=ddp", *own])
        if code == 0:
            # The command has disconnected. By a file: a process might still meet the command's store at its port.
            rank = int(os.environ["LOCAL_RANK"])
            torch.distributed.init_process_group("gloo", init_method=f"file://{fresh}/met", rank=rank, world_size=2)
        return code, [line for line in errors.getvalue().splitlines() if line.startswith("lightning-xt:")]

    (code, lines), (other_code, other_lines) = run_in_processes(fit, 2, fresh)
    assert other_lines == []
    if rule is None:
        assert (code, other_code, lines) == (0, 0, [])
    else:
        assert (code, other_code) == (2, 2)
        assert lines[0].startswith(f"lightning-xt: error: the processes of the run differ: {rule}")
        assert not list(fresh.glob("runs/tiny/0/checkpoints/*.ckpt"))


@pytest.fixture
def run_as(fresh, monkeypatch, capsys):
    """Return a function that returns the errors of a command in one of two processes."""
    monkeypatch.setattr(tempfile, "tempdir", str(fresh))
    monkeypatch.setattr(shared_errors, "LATER", 0.0)
    monkeypatch.setenv("WORLD_SIZE", "2")

    def run(number, *options):
        monkeypatch.setenv("LOCAL_RANK", str(number))
        assert main(["fit", "-c", "tiny.yaml", *options]) == 2
        return capsys.readouterr().err

    return run


def test_cases_s9_an_error_of_one_process_is_printed_by_it(run_as, fresh):
    said = "--validate_every is 0; it must be at least 1 optimizer step\n"
    mistake = "--validate_every=0"
    # Both met it.
    assert run_as(0, mistake) == f"lightning-xt: error: {said}"
    assert run_as(1, mistake) == ""
    # One alone.
    assert run_as(1, "--checkpoint_every=0").startswith(
        "lightning-xt: error: process 1 (the first is 0): --checkpoint_e"
    )
    # The mark of a run of the past.
    for mark in fresh.glob("lightning-xt-*"):
        os.utime(mark, (time.time() - 100, time.time() - 100))
    assert run_as(1, mistake) == f"lightning-xt: error: process 1 (the first is 0): {said}"
    assert run_as(0, mistake) == f"lightning-xt: error: {said}"


@pytest.mark.parametrize(
    ("address", "rule"),
    [
        ("host.invalid", "MASTER_ADDR is host.invalid, a machine that is unknown here ("),
        ("127.0.0.1", "the processes cannot connect at 127.0.0.1, port "),
    ],
)
def test_cases_s18_processes_that_cannot_connect(address, rule, fresh, monkeypatch, capsys):
    monkeypatch.setattr(same_processes, "UNKNOWN", 0.0)
    monkeypatch.setattr(tempfile, "tempdir", str(fresh))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        connection = {"MASTER_ADDR": address, "MASTER_PORT": taken.getsockname()[1], "NODE_RANK": 0, "LOCAL_RANK": 0}
        for name, value in {**connection, "WORLD_SIZE": 2}.items():
            monkeypatch.setenv(name, str(value))
        assert main(["fit", "-c", "tiny.yaml", "--trainer.devices=2", "--trainer.strategy=ddp"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"lightning-xt: error: {rule}")
