"""Worker processes that read batches."""

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
from lightning_xt.data.loading.workers import worker_options

if __name__ == "__main__":
    batches = iter(DataLoader(range(100), num_workers=2, **worker_options(2)))
    next(batches)
    workers = [worker.pid for worker in batches._workers]
    print(resource_tracker._resource_tracker._pid, forkserver._forkserver._forkserver_pid, *workers, flush=True)
    time.sleep(60)
"""


def is_running(process):
    """Return whether a process runs; a zombie does not."""
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
                for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
                    # The first process ignores some of the signals.
                    shielded = int(status["SigBlk"], 16) | (0 if place else int(status["SigIgn"], 16))
                    assert shielded >> (number - 1) & 1, f"{number.name} ends {helper}"
                    os.kill(helper, number)
            time.sleep(0.5)
            assert all(map(is_running, helpers))
        finally:
            script.kill()
    end = time.monotonic() + 20
    while any(map(is_running, helpers)):
        assert time.monotonic() < end, "a process is left"
        time.sleep(0.02)


HANGS_UP = """
import socket, sys
from multiprocessing.resource_sharer import DupFd
from torch.utils.data import DataLoader
from lightning_xt.data.loading.workers import worker_options

class HangsUp(list):
    def __getitem__(self, number):
        shared = DupFd(1)
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(shared._id[0])
        # Asked in turn: the one before has been answered then.
        shared.detach()
        sys.excepthook(ValueError, ValueError("another error"), None)
        return number

if __name__ == "__main__":
    print(*DataLoader(HangsUp([0, 1]), num_workers=1, **worker_options(1)))
"""


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="workers are started as by torch")
def test_they_do_not_complain_that_the_process_they_work_for_has_ended(tmp_path):
    (tmp_path / "script.py").write_text(HANGS_UP)
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "tensor([0]) tensor([1])\n")
    assert done.stderr == 2 * "ValueError: another error\n"
