"""Runs that get a signal to stop, at any moment and in any of their processes, save once and resume exactly."""

import random
from pathlib import Path
from typing import Any

from chaos.compare import RunError, find_differences, load
from chaos.runs import (
    RESUME,
    RUN,
    SAVED,
    Outcome,
    Setting,
    complete,
    fit,
    last_line,
    prepare,
    read_saves,
    read_signals,
    run_uninterrupted,
)
from lightning_xt.system.stopping import describe_signal

SETTINGS = [
    Setting(pairs=False, workers=2, accumulate=1, processes=1, average=True),
    Setting(pairs=False, workers=2, accumulate=2, processes=2, average=False, at_epochs_end=True),
    Setting(pairs=False, workers=0, accumulate=1, processes=2, average=True, keep=2),
    Setting(pairs=True, workers=0, accumulate=2, processes=1, average=False, at_epochs_end=True),
    Setting(pairs=True, workers=0, accumulate=1, processes=2, average=True),
    Setting(pairs=False, workers=2, accumulate=1, processes=2, average=True, signals=("SIGINT",)),
]
MOMENTS = ("step", "validation", "sampling", "saving", "setup")
BOUND = 60
"""Seconds within which a run must end after the signal."""


def make_plans(setting: Setting, count: int, steps: int, seed: str) -> list[dict[str, Any]]:
    """Return `count` signals, spread over a run."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        moment = MOMENTS[number % len(MOMENTS)]
        targets: list[int | str] = ["all", *range(setting.processes)]
        made.append(
            {
                "moment": moment,
                # A resumed run counts no steps before its first.
                "step": 0 if moment == "setup" else SAVED + int((steps - 3 * SAVED) * (number + draw.random()) / count),
                "file": "last.ckpt" if moment == "saving" else None,
                "signal": draw.choice(setting.signals),
                "target": 0 if moment == "saving" else targets[number % len(targets)],
                "delay": 0.02,
                "seed": draw.random(),
            }
        )
    if made:
        # The very last validation, after which nothing is left to train.
        made[-1] |= {"moment": "validation", "step": steps, "target": "all", "waits": True}
    return made


def check(setting: Setting, folder: Path, stops: list[dict[str, Any]], steps: int) -> tuple[int, list[str]]:
    """Run a setting with and without signals.

    Returns:
        The number of correct stops, and the problems.
    """
    start = [*prepare(setting, folder), *setting.options(steps)]
    clean = 0
    stopped = folder / "stopped"
    try:
        run_uninterrupted(folder, start)
        for number, plan in enumerate(stops):
            saves = len(read_saves(stopped))
            ended = fit(stopped, RESUME if number else start, plan)
            _check_end(ended, plan, stopped, read_saves(stopped)[saves:], read_signals(stopped))
            clean += 1
        complete(stopped, RESUME)
    except RunError as error:
        return clean, [str(error)]
    found = list(find_differences(folder / "whole" / RUN, stopped / RUN))
    return (0 if found else clean), found


def _check_end(
    ended: Outcome, plan: dict[str, Any], folder: Path, saved: list[dict[str, Any]], signals: list[dict[str, Any]]
) -> None:
    """Raise a RunError if a run did not stop as it should."""
    if ended.code != (130 if plan["signal"] == "SIGINT" else 75):
        raise RunError(f"exit code {ended.code} in {plan}: {last_line(ended.said)}")
    if ended.seconds > BOUND:
        raise RunError(f"takes {ended.seconds:.0f} seconds to stop, in {plan}")
    said = ended.said.replace("a signal to another process", plan["signal"])
    if "Traceback" in said or describe_signal(plan["signal"]) not in said:
        raise RunError(f"says {ended.said!r}, in {plan}")
    if plan["moment"] == "setup":
        if saved:
            raise RunError(f"saves {saved}, in {plan}")
        return
    # After a signal within a step, the run ends with that step or, with accumulation, with its last batch; a signal
    # just after the end of a step is seen at the end of the next one.
    before, after = signals[0]["step"], signals[-1]["step"]
    last = load(folder / RUN / "checkpoints/last.ckpt")["global_step"]
    if not before <= last <= after + 2:
        raise RunError(f"last.ckpt is at step {last}, signalled between {before} and {after}, in {plan}")
    steps = [each["step"] for each in saved if each["name"] == "last.ckpt"]
    if steps.count(last) != 1 or len(set(steps)) != len(steps):
        raise RunError(f"saves last.ckpt at steps {steps}, in {plan}")
