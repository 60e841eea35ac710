"""Cores that other processes use, from the times that Linux reports, and the sentence about them."""

import os
import subprocess
import sys
import time

import pytest

from lightning_xt.system import core_use
from lightning_xt.system.core_use import CoreMeter, CoreUse

TICKS = os.sysconf("SC_CLK_TCK")


class Machine:
    """Files of /proc, and the time."""

    def __init__(self, root, monkeypatch):
        self.root, self.now, self.own = root, 100.0, 0.0
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2})
        monkeypatch.setattr(os, "times", lambda: (self.own, 0.0, 0.0, 0.0, 0.0))
        monkeypatch.setattr(core_use, "count_cores", lambda: 2)

    def write(self, path, text):
        file = self.root / "proc" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def write_stat(self, *seconds):
        """Write seconds of each kind for core 0; core 2 is idle, and core 1 belongs to others."""
        ticks = " ".join(str(round(TICKS * each)) for each in seconds)
        idle = "0 0 0 9999 9999 0 0 0 0 0"
        self.write("stat", f"cpu 1 2 3\ncpu0 {ticks} 0 0\ncpu1 777777 {idle[2:]}\ncpu2 {idle}\nintr 1 2 3\n")

    def write_process(self, process, ppid, seconds, children=()):
        ticks = " ".join(str(round(TICKS * each)) for each in seconds)
        self.write(f"{process}/stat", f"{process} (a ) name) S {ppid} 0 0 0 0 0 0 0 0 0 {ticks} 20 0 1")
        self.write(f"{process}/task/{process}/children", " ".join(map(str, children)))

    def meter(self, **options):
        return CoreMeter(root=self.root, clock=lambda: self.now, **options)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    return Machine(tmp_path, monkeypatch)


def test_others_use_what_is_in_use_besides_the_own_time(machine):
    machine.write_stat(0, 0, 0, 50, 5, 0, 0, 0)
    meter = machine.meter()
    # Of user, nice, system, idle, waiting, two kinds of interrupts and the host's: 0.5 + 1 + 1.5 + 0.25 + 0.25 + 0.5.
    machine.write_stat(0.5, 1, 1.5, 99, 95, 0.25, 0.25, 0.5)
    machine.now, machine.own = 104.0, 2.4
    assert meter.elapsed == 4
    assert meter.measure() == CoreUse(0.6, pytest.approx(0.4), 2)
    # From here on, and never less than nothing.
    machine.now, machine.own = 105.0, 3.0
    assert meter.measure() == CoreUse(pytest.approx(0.6), 0.0, 2)
    assert meter.measure() is None


def test_processes_that_this_one_has_started_are_not_others(machine):
    machine.write_stat(0, 0, 0, 0, 0, 0, 0, 0)
    me = os.getpid()
    machine.write_process(me, os.getppid(), (0, 0, 0, 0), [71])
    machine.write_process(71, me, (1, 1, 1, 1), [72, 73])
    machine.write_process(72, 71, (5, 0, 0, 0))
    # The parent has started another process of the run.
    machine.write_process(os.getppid(), 1, (100, 0, 0, 0), [me, 74])
    machine.write_process(74, os.getppid(), (0, 0, 0, 0))
    meters = [machine.meter(), machine.meter(started=False), machine.meter(launched=True)]
    machine.write_stat(8, 0, 0, 0, 0, 0, 0, 0)
    machine.write_process(71, me, (1.5, 1.5, 1.5, 1.5), [72, 73])
    machine.write_process(72, 71, (6, 0, 0, 0))
    machine.write_process(74, os.getppid(), (1, 0, 0, 0))
    machine.now = 108.0
    for meter, own in zip(meters, (3 / 8, 0.0, 4 / 8), strict=True):
        found = meter.measure()
        # Process time is real.
        assert found.own == pytest.approx(own, abs=0.05) and found.own + found.others == pytest.approx(1.0, abs=0.01)


def test_without_proc_the_load_is_an_estimate(machine, monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (3.5, 0.0, 0.0))
    meter = machine.meter()
    machine.now, machine.own = 102.0, 3.0
    assert meter.measure() == CoreUse(1.5, 0.5, 2)
    machine.now, machine.own = 104.0, 3.0
    assert meter.measure() == CoreUse(0.0, 2.0, 2)
    monkeypatch.delattr(os, "getloadavg")
    machine.now = 106.0
    assert meter.measure() is None


def test_the_sentence():
    assert str(CoreUse(1.02, 0.94, 2)) == "other processes use 0.9 of 2 cores"


@pytest.mark.parametrize(
    ("use", "threads", "short"),
    [
        (CoreUse(1.0, 1.0, 2), 2, True),
        (CoreUse(1.7, 0.3, 2), 2, True),
        (CoreUse(1.75, 0.25, 2), 2, False),  # noise
        (CoreUse(1.0, 1.0, 2), 1, False),  # a core for each
        (CoreUse(0.5, 1.5, 2), 1, True),
        (CoreUse(1.2, 8.0, 16), 16, False),  # cores are free: the threads have nothing to do
        (CoreUse(4.0, 12.0, 16), 8, True),
        (CoreUse(8.0, 8.0, 16), 8, False),
    ],
)
def test_cores_are_short_if_threads_and_others_need_more(use, threads, short):
    assert use.is_short(threads) is short


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports the times of cores")
def test_a_busy_process_of_this_machine_is_seen():
    """Processes with a core each: a child counts as the own process if children do."""
    busy = subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE)
    with busy:
        busy.stdout.readline()
        meters = CoreMeter(), CoreMeter(started=False)
        time.sleep(0.6)
        own, alone = (meter.measure() for meter in meters)
        busy.kill()
    assert alone.others > 0.2 and own.own - alone.own > 0.2
