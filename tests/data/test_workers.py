"""Processes that read batches for another."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
import time
from multiprocessing import forkserver, resource_tracker
from torch.utils.data import DataLoader
from lightning_xt.data.workers import worker_options

if __name__ == "__main__":
    batches = iter(DataLoader(range(100), num_workers=2, **worker_options(2)))
    next(batches)
    workers = [worker.pid for worker in batches._workers]
    print(resource_tracker._resource_tracker._pid, forkserver._forkserver._forkserver_pid, *workers, flush=True)
    time.sleep(60)
"""


def runs(process):
    """Whether a process runs; one that has ended may wait for somebody to ask for its exit code."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")
def test_they_outlive_signals_but_not_the_process_they_work_for(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    with subprocess.Popen([sys.executable, tmp_path / "script.py"], stdout=subprocess.PIPE, text=True) as script:
        helpers = [int(number) for number in script.stdout.readline().split()]
        try:
            assert len(helpers) == 4
            for place, helper in enumerate(helpers):
                status = dict(line.split(":", 1) for line in Path(f"/proc/{helper}/status").read_text().splitlines())
                for number in (signal.SIGTERM, signal.SIGUSR1):
                    # The first of them ignores one of them.
                    shielded = int(status["SigBlk"], 16) | (0 if place else int(status["SigIgn"], 16))
                    assert shielded >> (number - 1) & 1, f"{number.name} ends {helper}"
                    os.kill(helper, number)
            time.sleep(0.5)
            assert all(map(runs, helpers))
        finally:
            script.kill()
    end = time.monotonic() + 20
    while any(map(runs, helpers)):
        assert time.monotonic() < end, "a process is left"
        time.sleep(0.02)
