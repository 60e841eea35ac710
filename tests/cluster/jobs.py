"""Starts the scripts of configs/cluster on this machine, with stand-ins for what a cluster has."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import warm
from chaos.runs import LANGUAGE

HERE = Path(__file__).parent
SCRIPTS = HERE.parents[1] / "configs" / "cluster"
SECONDS = 60
"""What takes longer hangs."""
STEPS = 120


def free_port(first: int = 15000, last: int = 24999) -> int:
    """A port of this machine that nothing listens at; the default range is that of Lightning under SLURM."""
    start = first + os.getpid() % (last - first)
    for port in [*range(start, last), *range(first, start)]:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")


def programs(folder: Path, lightning_xt: str | None = None) -> Path:
    """A folder of programs to be found first: srun, scontrol, torchrun and lightning-xt, or a shell script as that."""
    folder.mkdir()
    modules = {
        "srun": f"{HERE}/srun.py",
        "scontrol": f"{HERE}/scontrol.py",
        "torchrun": "-m torch.distributed.run",
        "lightning-xt": "-m lightning_xt",
    }
    for name, module in modules.items():
        text = f'exec {sys.executable} {module} "$@"\n'
        if name == "lightning-xt" and lightning_xt is not None:
            text = lightning_xt
        (folder / name).write_text(f"#!/bin/bash\n{text}")
        (folder / name).chmod(0o755)
    return folder


def write_inputs(folder: Path) -> None:
    """Writes a corpus and the config check.yaml."""
    (folder / "corpus.txt").write_text("".join(random.Random(0).choices("the quick brown fox\n", k=4000)))
    options = f"validate_every: 50\ncheckpoint_every: 30\ntrainer: {{max_steps: {STEPS}, "
    (folder / "check.yaml").write_text(LANGUAGE.replace("trainer: {", options))


def fit(folder: Path, *options: str) -> None:
    """Trains in a folder of its own, to the end."""
    folder.mkdir()
    done = warm.run(["fit", "-c", "../check.yaml", *options], folder=folder, timeout=SECONDS)
    assert done.returncode == 0, done.stderr


class Script:
    """A script that runs, in a session of its own; `with` ends what is left of it.

    Args:
        name: of the script.
        arguments: of the script.
        folder: where it runs; output.txt is added to.
        variables: what its environment has beside ours.
    """

    def __init__(self, name: str, arguments: list[str], folder: Path, variables: dict[str, str]) -> None:
        self.output = folder / "output.txt"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                ["bash", str(SCRIPTS / name), *arguments],
                cwd=folder,
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def __enter__(self) -> "Script":
        return self

    def __exit__(self, *args: object) -> None:
        for process in reversed([self.process.pid, *descendants(self.process.pid)]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.wait()

    def wait(self) -> int:
        """The exit code."""
        try:
            return self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not done after {SECONDS} seconds:\n{self.output.read_text()}") from None

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Waits until something is so while the script runs."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert self.process.poll() is None, f"it ended:\n{self.output.read_text()}"
            assert time.monotonic() < deadline, f"not so after {SECONDS} seconds:\n{self.output.read_text()}"
            time.sleep(0.002)


def descendants(process: int) -> list[int]:
    """The processes that a process started, and those that they started."""
    try:
        children = [int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except FileNotFoundError:
        return []
    return [each for child in children for each in (child, *descendants(child))]


def command(process: int) -> list[str]:
    """What a process runs; nothing once it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_text().split("\0")
    except FileNotFoundError:
        return []


class Job:
    """A job of the fake SLURM: two nodes with a task each, started by the sbatch script as often as it is queued.

    Args:
        folder: where it runs.
        lightning_xt: a shell script to stand in for the command. None = the command.
    """

    def __init__(self, folder: Path, lightning_xt: str | None = None) -> None:
        self.folder, self.place = folder, folder / "slurm"
        self.place.mkdir()
        self.programs = programs(folder / "bin", lightning_xt)
        # Lightning makes the port of the last four digits.
        self.number = 760000 + free_port() - 15000
        self.state("RUNNING")

    def start(self, *arguments: str, **variables: str) -> Script:
        """Starts the script as slurmd would."""
        (self.place / "tasks").unlink(missing_ok=True)
        job = {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "FAKE_SLURM": str(self.place),
            "SLURM_JOB_ID": str(self.number),
            "SLURM_JOB_NAME": "lightning-xt",
            "SLURM_NODELIST": "127.0.0.1",
            "SLURM_NNODES": "2",
            "SLURM_NTASKS": "2",
            "SLURM_NTASKS_PER_NODE": "1",
            "SLURM_CPUS_PER_TASK": "3",
        }
        return Script("slurm.sbatch", list(arguments), self.folder, {**job, **variables})

    def state(self, state: str) -> None:
        """Sets what scontrol says of the job."""
        (self.place / "state").write_text(state)

    @property
    def tasks(self) -> list[int]:
        """The processes that srun started; none before it has."""
        file = self.place / "tasks"
        return [int(each) for each in file.read_text().split()] if file.exists() else []

    @property
    def requeued(self) -> list[str]:
        """Each requeue."""
        file = self.place / "requeued"
        return file.read_text().split() if file.exists() else []
