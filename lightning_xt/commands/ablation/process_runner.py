"""Runs of an ablation in processes."""

from collections.abc import Generator, Iterable, Sequence
from multiprocessing.connection import wait
from statistics import median
from typing import Any, NamedTuple, Protocol

from lightning_xt.commands.ablation.child_process import ChildProcess, Place, RunError
from lightning_xt.commands.ablation.child_training import train_in_turns, train_run
from lightning_xt.commands.ablation.paced_steps import FACTS
from lightning_xt.commands.ablation.study_plan import Run

WARM_UP = 3
"""Steps before speeds are measured: the first ones allocate, and may compile."""
SLICE = 4
"""Steps of a slice."""


class Job(NamedTuple):
    """Run to train.

    Args:
        run: the run.
        args: its options of `fit`.
        metrics: metrics of which it must have one; those of a test split are measured if one is named.
    """

    run: Run
    args: Sequence[str]
    metrics: Sequence[str]


Results = Generator[tuple[Run, dict[str, Any] | RunError], None, None]


class Runner(Protocol):
    """Whatever trains the runs of an ablation."""

    def measure(self, base: Sequence[str], args: Sequence[str]) -> dict[str, Any]:
        """Return what a step costs: `seconds_per_step` and the facts of `PacedSteps`; RunError if it fails.

        Args:
            base: options of `fit` of the base.
            args: those of the variant.
        """
        ...

    def train(self, jobs: Iterable[Job]) -> Results:
        """Train runs, and yield each one's result when it is done.

        Args:
            jobs: the runs, taken one by one when a process is free.
        """
        ...


class ProcessRunner:
    """Runner with a process for each run.

    Args:
        workers: runs at the same time.
        threads: threads of each.
        devices: GPUs, over which the workers are distributed; 0 = the base's own choice.
        slices: slices of the measurement of speed.
    """

    def __init__(self, workers: int, threads: int, devices: int = 0, slices: int = 5) -> None:
        share = [number % devices if devices and workers > 1 else None for number in range(workers)]
        self._places = [Place(threads, device) for device in share]
        self._slices = slices
        self._base: ChildProcess | None = None

    def measure(self, base: Sequence[str], args: Sequence[str]) -> dict[str, Any]:
        place = self._places[0]
        if self._base is None:
            self._base = ChildProcess(train_in_turns, (base,), place)
            self._base.ask(WARM_UP)
        own = self._base if args == base else ChildProcess(train_in_turns, (args,), place)
        try:
            if own is not self._base:
                own.ask(WARM_UP)
            before = [self._base.ask(SLICE)]
            seconds = []
            for _ in range(self._slices):
                seconds.append(own.ask(SLICE))
                before.append(self._base.ask(SLICE))
            facts = own.ask(FACTS)
        finally:
            if own is not self._base:
                own.end()
        ratios = [2 * each / (before[at] + before[at + 1]) for at, each in enumerate(seconds)]
        return {
            "time_ratio": median(ratios),
            "time_ratios": ratios,
            "seconds_per_step": median(seconds) / SLICE,
            **facts,
        }

    def train(self, jobs: Iterable[Job]) -> Results:
        waiting, free = iter(jobs), list(self._places)
        active: dict[Any, tuple[Run, ChildProcess, Place]] = {}
        try:
            while True:
                while free and (job := next(waiting, None)) is not None:
                    place = free.pop(0)
                    child = ChildProcess(train_run, (job.args, job.metrics), place)
                    active[child.connection] = (job.run, child, place)
                if not active:
                    return
                for connection in wait(list(active)):
                    run, child, place = active.pop(connection)
                    free.append(place)
                    try:
                        result: dict[str, Any] | RunError = child.receive()
                    except RunError as failure:
                        result = failure
                    finally:
                        child.end()
                    yield run, result
        finally:
            for _, child, _ in active.values():
                child.end()

    def close(self) -> None:
        """End the processes that are left."""
        if self._base is not None:
            self._base.end()
            self._base = None
