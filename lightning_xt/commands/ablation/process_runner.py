"""Runs of an ablation in processes."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack
from multiprocessing.connection import wait
from statistics import median
from typing import Any, NamedTuple, Protocol

from lightning_xt.commands.ablation.child_process import ChildProcess, Place, RunError
from lightning_xt.commands.ablation.child_training import train_in_turns, train_run
from lightning_xt.commands.ablation.paced_steps import FACTS
from lightning_xt.commands.ablation.study_plan import Run

FIRST = 2
"""Steps that are not measured, for they may compile."""
WARM_UP = 20
"""Steps after them before speeds are measured: a process becomes faster while its memory grows."""
LONGEST_WARM_UP = 20.0
"""Seconds after which the warm-up ends earlier."""
SLICE = 5
"""Steps of a slice: two of them have ten, as often as SOAP renews its bases."""


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


class BaseError(RunError):
    """Failure of the base while a variant was measured against it."""


Results = Generator[tuple[Run, dict[str, Any] | RunError], None, None]


class Runner(Protocol):
    """Whatever trains the runs of an ablation."""

    def measure(self, base: Sequence[str], args: Sequence[str]) -> dict[str, Any]:
        """Return what a step costs: `seconds_per_step`, its ratio to the base's, and the facts of `PacedSteps`.

        Args:
            base: options of `fit` of the base.
            args: those of the variant; the same ones measure the base against itself.

        Raises:
            BaseError: the base's process failed, whatever is measured.
            RunError: the variant's did.
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
        slices: ratios of the measurement of speed, of two slices each.
    """

    def __init__(self, workers: int, threads: int, devices: int = 0, slices: int = 5) -> None:
        chosen = [number % devices if devices and workers > 1 else None for number in range(workers)]
        self._places = [Place(threads, device) for device in chosen]
        self._slices = slices

    def measure(self, base: Sequence[str], args: Sequence[str]) -> dict[str, Any]:
        with ExitStack() as ending:
            pair = []
            for options in (base, args):
                pair.append(ChildProcess(train_in_turns, (options,), self._places[0]))
                ending.callback(pair[-1].end)
            reference, own = pair
            seconds = _take_turns(own, reference, self._slices)
            facts = own.ask(FACTS)
        return {**seconds, **facts}

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


def _take_turns(own: ChildProcess, reference: ChildProcess, blocks: int) -> dict[str, Any]:
    """Return the seconds of a step of one training, and their ratios to those of another of the same age.

    The base is measured again with each variant: a process that has trained for longer is faster. Which of the two goes
    first changes from slice to slice, and each ratio is of two slices, so that the order matters to neither.
    """
    seconds: dict[ChildProcess, list[float]] = {own: [], reference: []}

    def train_slice(number: int, steps: int) -> dict[ChildProcess, float]:
        order = (own, reference) if number % 2 else (reference, own)
        return {process: _ask(process, steps, process is reference) for process in order}

    train_slice(1, FIRST)
    spent = 0.0
    for number in range(WARM_UP // SLICE):
        spent += sum(train_slice(number, SLICE).values())
        if spent > LONGEST_WARM_UP:
            break
    for number in range(2 * blocks):
        for process, found in train_slice(number, SLICE).items():
            seconds[process].append(found)
    pairs = {process: [sum(found[at : at + 2]) for at in range(0, 2 * blocks, 2)] for process, found in seconds.items()}
    ratios = [mine / theirs for mine, theirs in zip(pairs[own], pairs[reference], strict=True)]
    return {
        "time_ratio": median(ratios),
        "time_ratios": ratios,
        "seconds_per_step": median(seconds[own]) / SLICE,
    }


def _ask(process: ChildProcess, steps: int, is_base: bool) -> float:
    try:
        return float(process.ask(steps))
    except RunError as failure:
        if not is_base:
            raise
        raise BaseError(str(failure), failure.output, failure.may_pass) from failure
