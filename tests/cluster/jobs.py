"""Scripts of configs/cluster run on this machine, with stand-ins for the cluster's programs."""

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
"""Seconds after which a script counts as hanging."""
STEPS = 120


def find_free_port(first: int = 15000, last: int = 24999) -> int:
    """Find a free port of this machine; the default range is that of Lightning under SLURM."""
    start = first + os.getpid() % (last - first)
    for port in [*range(start, last), *range(first, start)]:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")


def write_programs(folder: Path, lightning_xt: str | None = None) -> Path:
    """Write a folder of programs for PATH: srun, scontrol, torchrun, and lightning-xt or a shell script for it."""
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
    """Write a corpus and the config check.yaml."""
    (folder / "corpus.txt").write_text("".join(random.Random(0).choices("the quick brown fox\n", k=4000)))
    options = f"validate_every: 50\ncheckpoint_every: 30\ntrainer: {{max_steps: {STEPS}, "
    (folder / "check.yaml").write_text(LANGUAGE.replace("trainer: {", options))


def fit(folder: Path, *options: str) -> None:
    """Train in a new folder, to the end."""
    folder.mkdir()
    done = warm.run(["fit", "-c", "../check.yaml", *options], folder=folder, timeout=SECONDS)
    assert done.returncode == 0, done.stderr


class Script:
    """Running script in a separate session; `with` kills the processes that it leaves.

    Args:
        name: file name of the script.
        arguments: arguments of the script.
        folder: the current folder of the script; output.txt grows there.
        variables: variables added to this environment.
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
        for process in reversed([self.process.pid, *find_descendants(self.process.pid)]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.wait()

    def wait(self) -> int:
        """Wait for the end, and return the exit code."""
        try:
            return self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not done after {SECONDS} seconds:\n{self.output.read_text()}") from None

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Wait until a condition holds while the script runs."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert self.process.poll() is None, f"it ended:\n{self.output.read_text()}"
            assert time.monotonic() < deadline, f"not so after {SECONDS} seconds:\n{self.output.read_text()}"
            time.sleep(0.002)


def find_descendants(process: int) -> list[int]:
    """Find the processes that a process started, and those that they started."""
    try:
        children = [int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except FileNotFoundError:
        return []
    return [each for child in children for each in (child, *find_descendants(child))]


def read_command(process: int) -> list[str]:
    """Read the command line of a process; empty after its end."""
    try:
        return Path(f"/proc/{process}/cmdline").read_text().split("\0")
    except FileNotFoundError:
        return []


class Job:
    """Job of the fake SLURM: two nodes with a task each, started by the sbatch script as often as it is queued.

    Args:

        folder: the current folder of the job.
        lightning_xt: a shell script to stand in for the command. None = the command.
    """

    def __init__(self, folder: Path, lightning_xt: str | None = None) -> None:
        self.folder, self.place = folder, folder / "slurm"
        self.place.mkdir()
        self.programs = write_programs(folder / "bin", lightning_xt)
        # Lightning makes the port of the last four digits.
        self.number = 760000 + find_free_port() - 15000
        self.state("RUNNING")

    def start(self, *arguments: str, **variables: str) -> Script:
        """Start the script as slurmd would."""
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
        """Set the state that scontrol shows."""
        (self.place / "state").write_text(state)

    @property
    def tasks(self) -> list[int]:
        """Processes that srun started; none before it has."""
        file = self.place / "tasks"
        return [int(each) for each in file.read_text().split()] if file.exists() else []

    @property
    def requeued(self) -> list[str]:
        """Numbers of the job, one for each requeue."""
        file = self.place / "requeued"
        return file.read_text().split() if file.exists() else []
