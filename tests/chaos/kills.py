"""Runs that are killed by SIGKILL at random moments, again and again, end as those that were left alone."""

import random
from pathlib import Path
from typing import Any

from chaos.compare import RunError, differences, load
from chaos.runs import RESUME, RUN, SAVED, Setting, completed, fit, last_line, prepare, whole

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
"""Seconds within which a process whose like was killed must have ended."""


def plans(setting: Setting, count: int, steps: int, seed: str) -> list[dict[str, Any]]:
    """So many kills, spread over a run."""
    draw, files = random.Random(seed), ("last.ckpt", "best.ckpt")
    made = []
    for number in range(count):
        moment = MOMENTS[number % len(MOMENTS)]
        # Each third of the kills of two processes leaves one of them alone.
        alone = setting.processes > 1 and number % 3 == 2
        made.append(
            {
                "moment": moment,
                # After the first checkpoint, and where a validation is still to come.
                "step": SAVED + int((steps - 3 * SAVED) * (number + draw.random()) / count),
                # A loss that is the lowest so far is seldom late in a run.
                "file": draw.choice(files[: 1 + (number < count // 2)]) if moment in ("saving", "renaming") else None,
                "signal": "SIGKILL",
                # Only the first process writes.
                "target": (0 if moment in ("saving", "renaming") else draw.randrange(2)) if alone else "all",
                "delay": 0.02,
                "seed": draw.random(),
            }
        )
    return made


def check(setting: Setting, folder: Path, kills: list[dict[str, Any]], steps: int) -> tuple[str, list[str]]:
    """Runs a setting both ways.

    Args:
        setting: how to run.
        folder: an empty one, or one in which a run of the setting has been left alone already.
        kills: what happens to the second run, one after the other.
        steps: optimizer steps of the whole run.

    Returns:
        Where it was killed and resumed, and what differs.
    """
    start = [*prepare(setting, folder), *setting.options(steps)]
    history = []
    try:
        whole(folder, start)
        for number, plan in enumerate(kills):
            ended = fit(folder / "killed", RESUME if number else start, plan)
            if ended.code == 0:
                raise RunError(f"was done before it could be killed, in {plan}")
            if "Traceback" in ended.said and plan["target"] == "all":
                raise RunError(f"fails before it can be killed: {last_line(ended.said)}")
            if ended.seconds > BOUND:
                raise RunError(f"takes {ended.seconds:.0f} seconds to end after one of its processes is killed")
            saved = load(folder / "killed" / RUN / "checkpoints/last.ckpt")["global_step"]
            history.append(f"{plan['moment']} at {plan['step']} from {saved}")
        completed(folder / "killed", RESUME)
    except RunError as error:
        return "; ".join(history), [str(error)]
    return "; ".join(history), list(differences(folder / "whole" / RUN, folder / "killed" / RUN))
