"""Runs that SIGKILL stops again and again, at random moments, end as uninterrupted runs do."""

import random
import signal
from pathlib import Path
from typing import Any

from chaos.compare import RunError, find_differences, load
from chaos.runs import RESUME, RUN, SAVED, Outcome, Setting, complete, fit, last_line, prepare, run_uninterrupted

SETTINGS = [
    Setting(pairs=False, workers=0, accumulate=1, processes=1, average=True),
    Setting(pairs=False, workers=0, accumulate=2, processes=2, average=False, at_epochs_end=True),
    Setting(pairs=False, workers=2, accumulate=1, processes=2, average=True),
    Setting(pairs=False, workers=2, accumulate=2, processes=1, average=False, at_epochs_end=True),
    Setting(pairs=True, workers=0, accumulate=1, processes=1, average=False, at_epochs_end=True),
    Setting(pairs=True, workers=0, accumulate=1, processes=2, average=False),
    Setting(pairs=True, workers=0, accumulate=2, processes=1, average=True),
    Setting(pairs=True, workers=0, accumulate=2, processes=2, average=True, at_epochs_end=True),
]
MOMENTS = ("step", "validation", "sampling", "saving", "step", "renaming", "step", "validation", "saving", "step")
BOUND = 60
"""Seconds within which a process must end after its peer was killed."""


def make_plans(setting: Setting, count: int, steps: int, seed: str) -> list[dict[str, Any]]:
    """Return `count` kills, spread over a run."""
    draw, files = random.Random(seed), ("last.ckpt", "best.ckpt")
    made = []
    for number in range(count):
        moment = MOMENTS[number % len(MOMENTS)]
        # A validation, samples, a step and a save in which only one of two processes is killed.
        alone = setting.processes > 1 and number % 10 in (1, 2, 4, 8)
        made.append(
            {
                "moment": moment,
                # After the first checkpoint and before the last validation.
                "step": SAVED + int((steps - 3 * SAVED) * (number + draw.random()) / count),
                # Late in a run the loss is seldom the lowest so far.
                "file": draw.choice(files[: 1 + (number < count // 2)]) if moment in ("saving", "renaming") else None,
                "signal": "SIGKILL",
                # Only the first process writes.
                "target": (0 if moment in ("saving", "renaming") else draw.randrange(2)) if alone else "all",
                "delay": 0.02,
                "seed": draw.random(),
            }
        )
    if count > 4:
        # Killed again before the next checkpoint.
        made[4]["step"] = made[3]["step"]
    return made


def check(setting: Setting, folder: Path, kills: list[dict[str, Any]], steps: int) -> tuple[str, list[str]]:
    """Run a setting with and without kills.

    Args:
        setting: the run's options.
        folder: an empty one, or one with the setting's uninterrupted run.
        kills: plans of the kills, one after the other.
        steps: optimizer steps of the whole run.

    Returns:
        The places at which the run was killed and resumed, and the differences.
    """
    start = [*prepare(setting, folder), *setting.options(steps)]
    history = []
    try:
        run_uninterrupted(folder, start)
        for number, plan in enumerate(kills):
            ended = fit(folder / "killed", RESUME if number else start, plan)
            if "Traceback" in ended.said:
                raise RunError(f"fails before it can be killed: {last_line(ended.said)}")
            _check_end(ended, plan)
            if ended.seconds > BOUND:
                raise RunError(f"takes {ended.seconds:.0f} seconds to end after one of its processes is killed")
            saved = load(folder / "killed" / RUN / "checkpoints/last.ckpt")["global_step"]
            history.append(f"{plan['moment']} at {plan['step']} from {saved}")
        complete(folder / "killed", RESUME)
    except RunError as error:
        return "; ".join(history), [str(error)]
    return "; ".join(history), list(find_differences(folder / "whole" / RUN, folder / "killed" / RUN))


def _check_end(ended: Outcome, plan: dict[str, Any]) -> None:
    """Raise a RunError if a run did not end as after a kill of one process or of all."""
    if ended.code == 0:
        raise RunError(f"was done before it could be killed, in {plan}")
    expected = 1 if plan["target"] == 1 else -signal.SIGKILL
    reported = plan["target"] == "all" or "stopped, because process" in ended.said
    if ended.code != expected or not reported:
        raise RunError(f"ends with {ended.code} and says {last_line(ended.said)!r}, in {plan}")
