"""Waits of threads next to a busy process: how they change, and that results and the user's settings stay."""

import json
import os
import subprocess
import sys
import time

import pytest
import torch

from lightning_xt.system import thread_waits
from lightning_xt.system.core_use import CoreUse
from lightning_xt.system.thread_waits import SETTINGS, ThreadWaits, can_choose

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has GNU's OpenMP runtime")

several_cores = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) == 1, reason="threads share one core"
)

# Another process comes, goes, comes and goes again. The CPU seconds of ten steps, each with a pause of 5 ms,
# show how threads wait.
SCRIPT = """
import json, os, threading, time
from lightning_xt.system import thread_waits
from lightning_xt.system.core_use import CoreUse

thread_waits.count_cores = lambda: 2


class Meter:
    others = 0.0

    def measure(self):
        return CoreUse(2.0 - self.others, self.others, 2)


def measure():
    start = time.process_time()
    for _ in range(10):
        values.exp()
        time.sleep(0.005)
    return time.process_time() - start


meter, found = Meter(), []
with thread_waits.ThreadWaits(meter, every=0.01) as waits:
    import torch

    torch.set_num_threads(max(2, len(os.sched_getaffinity(0))))
    values = torch.randn(1 << 17, generator=torch.Generator().manual_seed(0))
    for meter.others in (0.0, 1.0, 0.0, 1.0):
        until = time.monotonic() + 5
        while waits.sleep != bool(meter.others) and time.monotonic() < until:
            time.sleep(0.01)
        found.append((waits.sleep, measure(), len(os.listdir("/proc/self/task")), values.sum().item()))
seconds = [measure()]
for release in (lambda: None, thread_waits.release_threads):
    release()
    other = threading.Thread(target=lambda: seconds.append(measure()))
    other.start()
    other.join()
print(json.dumps({"found": found, "after": waits.sleep, "seconds": seconds}))
"""


def run(**environment):
    variables = {name: value for name, value in os.environ.items() if name not in (*SETTINGS, "OMP_NUM_THREADS")}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=variables | environment)
    return json.loads(done.stdout)


@several_cores
def test_threads_sleep_while_other_processes_take_their_cores():
    said = run()
    sleeps, seconds, threads, results = zip(*said["found"], strict=True)
    assert sleeps == (False, True, False, True) and said["after"] is False
    # Threads that wait actively use their cores in pauses.
    assert max(seconds[1], seconds[3]) < min(seconds[0], seconds[2]) / 2
    # The owner of the idle threads and at least one of them, which end.
    assert min(threads[1] - threads[0], threads[1] - threads[2], threads[3] - threads[2]) >= 2
    assert threads[0] == threads[2] and len(set(results)) == 1
    # Another thread computes: the threads of the first one count until they are released.
    main, other, released = said["seconds"]
    assert other < min(main, released) / 2


@several_cores
def test_a_setting_of_the_user_wins():
    said = run(OMP_WAIT_POLICY="active")
    assert [each[0] for each in said["found"]] == [False] * 4
    assert len({each[2] for each in said["found"]}) == 1


def test_one_thread_waits_for_none(monkeypatch):
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(thread_waits, "count_cores", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert can_choose()
    for name in SETTINGS:
        with monkeypatch.context() as chosen:
            chosen.setenv(name, "1000")
            assert not can_choose()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert not can_choose()
    with ThreadWaits() as waits:
        assert waits._thread is None
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(thread_waits, "count_cores", lambda: 1)
    assert not can_choose()


class Busy:
    """Other processes that always use a core."""

    measured = 0

    def measure(self):
        self.measured += 1
        return CoreUse(1.0, 1.0, 2)


@pytest.fixture
def several(monkeypatch):
    monkeypatch.setattr(thread_waits, "can_choose", lambda: True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)


def wait_for(condition):
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("waited for 5 seconds")


def test_sleeping_threads_wait_actively_now_and_then(several, monkeypatch):
    """Next to a process that only uses what is left, they find that no core is taken."""
    monkeypatch.setattr(thread_waits, "AGAIN", 0.0)
    with ThreadWaits(Busy(), every=0.001) as waits:
        seen = set()
        wait_for(lambda: seen.add(waits.sleep) or seen == {True, False})


def test_another_runtime_is_left_as_it_is(several, monkeypatch):
    class Loaded:
        GOMP_parallel = kmp_set_blocktime = None

    monkeypatch.setattr(thread_waits.ctypes, "CDLL", lambda name: Loaded)
    meter = Busy()
    with ThreadWaits(meter, every=0.001) as waits:
        wait_for(lambda: meter.measured > 3)
        assert not waits.sleep


def test_torch_is_not_imported_for_it(monkeypatch):
    script = """import sys, time
from lightning_xt.system import thread_waits
thread_waits.can_choose = lambda: True
class Busy:
    measured = 0
    def measure(self):
        self.measured += 1
        return thread_waits.CoreUse(1.0, 1.0, 2)
meter = Busy()
with thread_waits.ThreadWaits(meter, every=0.001) as waits:
    while meter.measured < 3:
        time.sleep(0.01)
    print("torch" in sys.modules, waits.sleep)"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
