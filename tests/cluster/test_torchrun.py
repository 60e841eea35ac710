"""torchrun.sh on two machines, which are two agents of torchrun at the loopback address."""

import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from chaos.compare import find_differences, last_step, load, read_metrics
from cluster.jobs import (
    STEPS,
    Script,
    find_descendants,
    find_free_port,
    fit,
    read_command,
    write_inputs,
    write_programs,
)

# Each machine returns its exit codes in turn, one a start.
CODES = """
echo "$RANK/$WORLD_SIZE|$*" >> "said.$RANK"
codes=($(<"codes.$RANK"))
exit "${codes[$(wc -l < "said.$RANK") - 1]}"
"""
LISTENS = "trap 'exit 75' USR1\ntouch listens.$RANK\nwhile true; do sleep 0.05; done\n"


class Machines:
    """Machines that share one folder.

    Args:
        folder: the folder.
        number: number of machines.
        lightning_xt: a shell script to stand in for the command. None = the command.
    """

    def __init__(self, folder: Path, number: int, lightning_xt: str | None = None) -> None:
        self.folder, self.number, self.port = folder, number, find_free_port(25000, 29999)
        self.programs = write_programs(folder / "bin", lightning_xt)

    def start(self, machine: int, *arguments: str, **variables: str) -> Script:
        """Start the script on one machine."""
        own = {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "NODES": str(self.number),
            "NODE_RANK": str(machine),
            "MASTER_PORT": str(self.port),
            "GPUS": "1",
            "TMPDIR": str(self.folder),
        }
        return Script("torchrun.sh", list(arguments), self.folder, {**own, **variables})


@pytest.mark.parametrize(
    ("codes", "ends", "starts"),
    [("0", 0, 1), ("75 138 0", 0, 3), ("75 1", 1, 2), ("2", 1, 1), ("75 75 75", 75, 3)],
    ids=["done", "preempted", "then_a_fault", "a_mistake", "too_often"],
)
@pytest.mark.slow
def test_one_machine_starts_again_after_a_preemption_only(tmp_path, codes, ends, starts):
    (tmp_path / "codes.0").write_text(codes)
    machine = Machines(tmp_path, 1, CODES)
    with machine.start(0, "-c", "a b.yaml", MAX_RESTARTS="2") as script:
        assert script.wait() == ends
    line = "0/1|fit -c a b.yaml --ckpt_path last --trainer.num_nodes 1 --trainer.devices 1\n"
    assert (tmp_path / "said.0").read_text() == line * starts
    assert not list(tmp_path.glob("tmp.*"))


def test_a_machine_that_gets_a_signal_ends(tmp_path):
    machine = Machines(tmp_path, 1, LISTENS)
    with machine.start(0) as script:
        script.wait_for((tmp_path / "listens.0").exists)
        script.process.send_signal(signal.SIGTERM)
        assert script.wait() == 75


@pytest.mark.slow
def test_a_machine_that_waits_for_the_others_ends_at_once(tmp_path):
    machines = Machines(tmp_path, 2, LISTENS)
    with machines.start(1) as script:
        script.wait_for(
            lambda: any("--rdzv-conf" in read_command(each) for each in find_descendants(script.process.pid))
        )
        script.process.send_signal(signal.SIGUSR1)
        assert script.wait() == 75


@pytest.mark.slow
def test_two_machines_are_two_processes(tmp_path):
    """Two machines equal Lightning's two processes, bit for bit, and one with twice the batch up to rounding."""
    write_inputs(tmp_path)
    plain = ["--model.decoder.dropout=0", "--trainer.precision=64-true"]
    fit(tmp_path / "two", *plain, "--name=run", "--trainer.devices=2", "--trainer.strategy=ddp")
    fit(tmp_path / "one", *plain, "--name=run", "--trainer.devices=1", "--data.batch_size=8")
    folder = tmp_path / "machines"
    folder.mkdir()
    machines = Machines(folder, 2)
    with ExitStack() as stack:
        scripts = [stack.enter_context(machines.start(k, "-c", "../check.yaml", *plain, "--name=run")) for k in (0, 1)]
        assert [script.wait() for script in scripts] == [0, 0]
    run = folder / "runs/run/0"
    assert list(find_differences(tmp_path / "two/runs/run/0", run)) == []
    one = tmp_path / "one/runs/run/0"
    mine, theirs = (load(each / "checkpoints/last.ckpt") for each in (run, one))
    assert mine["TextFiles"]["samples_seen"] == theirs["TextFiles"]["samples_seen"] == STEPS * 8
    torch.testing.assert_close(mine["state_dict"], theirs["state_dict"], rtol=1e-9, atol=1e-9)
    losses = [[float(row["val/loss"]) for row in read_metrics(each).values() if row["val/loss"]] for each in (run, one)]
    assert len(losses[0]) == 3 and losses[0] == pytest.approx(losses[1], rel=1e-9)


@pytest.mark.slow
def test_a_machine_leaves_and_comes_back(tmp_path, uninterrupted):
    write_inputs(tmp_path)
    options = ["-c", "../check.yaml", "--name=whole"]
    folder = tmp_path / "machines"
    folder.mkdir()
    machines, run = Machines(folder, 2), folder / "runs/whole/0"
    with machines.start(0, *options) as stays:
        with machines.start(1, *options) as leaves:
            leaves.wait_for(lambda: last_step(run) >= 20)
            leaves.process.send_signal(signal.SIGTERM)
            assert leaves.wait() == 75
        assert stays.process.poll() is None
        assert 20 < load(run / "checkpoints/last.ckpt")["global_step"] < STEPS
        with machines.start(1, *options) as returns:
            assert returns.wait() == 0
        assert stays.wait() == 0
    assert list(find_differences(uninterrupted, run)) == []
