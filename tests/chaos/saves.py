"""A run that is killed while it saves leaves every checkpoint complete, the old one or the new one."""

import random
from pathlib import Path
from typing import Any

from chaos.compare import RunError, find_differences, load
from chaos.runs import RESUME, RUN, SAVED, Setting, complete, fit, last_line, prepare, run_uninterrupted
from lightning_xt.checkpoints.checkpoint import Checkpoint

SETTING = Setting(pairs=False, workers=0, accumulate=1, processes=1, average=True, at_epochs_end=True, keep=2)
MOMENTS = ("saving", "saving", "renaming", "saved")
FILES = ("last.ckpt", "best.ckpt", "step.ckpt")


def make_plans(count: int, steps: int, seed: str) -> list[dict[str, Any]]:
    """Return `count` kills during saves, spread over a run."""
    draw = random.Random(seed)
    return [
        {
            "moment": MOMENTS[number % len(MOMENTS)],
            # Late in a run the loss is seldom the lowest so far.
            "file": FILES[number % (3 if number < count // 2 else 1)],
            "step": 2 * SAVED + int((steps - 4 * SAVED) * number / count),
            "signal": "SIGKILL",
            "target": "all",
            "seed": draw.random(),
        }
        for number in range(count)
    ]


def check(folder: Path, kills: list[dict[str, Any]], steps: int) -> tuple[int, list[str]]:
    """Kill a run while it saves.

    Returns:
        The number of kills after which everything was intact, and the problems.
    """
    start = [*prepare(SETTING, folder), *SETTING.options(steps)]
    intact = 0
    into = folder / "saved"
    try:
        run_uninterrupted(folder, start)
        before = 0
        for number, plan in enumerate(kills):
            ended = fit(into, RESUME if number else start, plan)
            if ended.code != -9:
                raise RunError(f"exit code {ended.code} in {plan}: {last_line(ended.said)}")
            for file in (into / RUN / "checkpoints").glob("*.ckpt"):
                Checkpoint(file)
            step = load(into / RUN / "checkpoints/last.ckpt")["global_step"]
            if step < before or plan["step"] - step > SAVED:
                raise RunError(f"last.ckpt is at step {step} after {plan}, and was at {before}")
            before = step
            intact += 1
        complete(into, RESUME)
    except (RunError, ValueError) as error:
        return intact, [str(error)]
    found = list(find_differences(folder / "whole" / RUN, into / RUN))
    return (0 if found else intact), found
