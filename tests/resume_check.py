"""Kills runs and resumes them, and compares what they leave with what runs that were left alone leave.

    python tests/resume_check.py [--settings 0 3] [--steps 200] [--seed 1] [--folder FOLDER]

Each of eight settings runs the command line in processes of its own: once from beginning to end, and once killed by
SIGKILL at two random steps, resumed after each. Both must end with the same checkpoints, metrics, TensorBoard and
samples, bit for bit. What measures time is left out.
"""

import argparse
import contextlib
import csv
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

CONFIG = """
seed_everything: 3
data:
  class_path: TextFiles
  init_args: {path: ../corpus.txt, seq_len: 16, batch_size: 4, eval_batch_size: 8}
model:
  class_path: LanguageModel
  init_args:
    decoder: {dim: 16, depth: 2, dropout: 0.2, attention: {heads: 2}}
    optimizer: {class_path: AdamW, init_args: {lr: 0.01, weight_decay: 0.1}}
    schedule: {class_path: WarmupCosine, init_args: {warmup_steps: 10}}
trainer: {accelerator: cpu, gradient_clip_val: 1.0, log_every_n_steps: 1, enable_progress_bar: false}
sample_text: {length: 4, prompts: [the]}
"""
TIMED = {"tokens_per_second", "step_ms", "data_wait", "mfu", "peak_memory_gb"}
FORGOTTEN = {"current_score"}
"""What Lightning saves of a ModelCheckpoint but does not restore; nothing depends on it."""
SECONDS = 240
"""A process that takes longer hangs."""

# TensorBoard tells that it hides what a resumed run did anew.
logging.getLogger("tensorboard").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Setting:
    """One of the eight ways to run."""

    workers: int
    accumulate: int
    processes: int

    @property
    def at_epochs_end(self) -> bool:
        """Whether checkpoints are saved where epochs end; so chosen that each half of the others has both."""
        return (self.workers // 2 + self.accumulate + self.processes) % 2 == 1

    def __str__(self) -> str:
        place = "at the end of epochs" if self.at_epochs_end else "within epochs"
        return f"workers {self.workers}, accumulation {self.accumulate}, processes {self.processes}, saved {place}"

    def options(self, steps: int) -> list[str]:
        """The options of a run of so many optimizer steps."""
        saved = steps // 5
        # A multiple of neither, but for the end of the run.
        epoch = saved if self.at_epochs_end else steps * 7 // 20
        options = {
            "--data.num_workers": self.workers,
            "--trainer.accumulate_grad_batches": self.accumulate,
            "--trainer.devices": self.processes,
            "--trainer.strategy": "ddp" if self.processes > 1 else "auto",
            "--trainer.limit_train_batches": epoch * self.accumulate,
            "--trainer.max_steps": steps,
            "--checkpoint_every": saved,
            # Once in a while a validation and a checkpoint fall together.
            "--validate_every": saved * 3 // 2,
        }
        return [f"{name}={value}" for name, value in options.items()]


SETTINGS = [Setting(*choice) for choice in product((0, 2), (1, 2), (1, 2))]


class RunError(Exception):
    """A run did not do what it was started for."""


def check(setting: Setting, folder: Path, steps: int, kills: list[int]) -> tuple[str, list[str]]:
    """Runs a setting both ways.

    Args:
        setting: how to run.
        folder: an empty one.
        steps: optimizer steps of the whole run.
        kills: the steps after which the second run is killed, ascending.

    Returns:
        Where it was killed and resumed, and what differs.
    """
    text = "".join(random.Random(0).choices("the quick brown fox\n", k=4000))
    (folder / "corpus.txt").write_text(text)
    (folder / "check.yaml").write_text(CONFIG)
    start = ["-c", "../check.yaml", *setting.options(steps)]
    resume = ["-c", "runs/check/0/config.yaml", "--ckpt_path", "last"]
    history = []
    try:
        fit(folder / "whole", start)
        for number, step in enumerate(kills):
            killed = fit(folder / "killed", resume if number else start, kill_after=step)
            saved = load(folder / "killed" / "runs/check/0/checkpoints/last.ckpt")["global_step"]
            history.append(f"killed after {killed + 1}, resumed from {saved}")
        fit(folder / "killed", resume)
    except RunError as error:
        return "; ".join(history), [str(error)]
    return "; ".join(history), list(differences(folder / "whole/runs/check/0", folder / "killed/runs/check/0"))


def fit(folder: Path, options: list[str], kill_after: int | None = None) -> int:
    """Runs `fit` in a folder to its end, or kills all its processes once a step is logged and a checkpoint there.

    Returns:
        The last step that was logged, counted from 0.
    """
    folder.mkdir(exist_ok=True)
    run = folder / "runs/check/0"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / "output.txt").open("ab") as output:
        # A group of its own holds the workers and the other processes too.
        process = subprocess.Popen(
            [sys.executable, "-m", "lightning_xt", "fit", *options],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + SECONDS
    try:
        while process.poll() is None and time.monotonic() < deadline:
            reached = kill_after is not None and last_step(run) >= kill_after
            if reached and (run / "checkpoints/last.ckpt").is_file():
                break
            time.sleep(0.002)
        ended = process.poll()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    said = (folder / "output.txt").read_text(errors="replace").rstrip().rpartition("\n")[2]
    if ended is None and time.monotonic() >= deadline:
        raise RunError(f"hangs: not done after {SECONDS} seconds, its last line is: {said}")
    if ended not in (None, 0):
        raise RunError(f"ends with exit code {ended}, its last line is: {said}")
    if ended == 0 and kill_after is not None:
        raise RunError(f"was done before it could be killed at step {kill_after}")
    return last_step(run)


def last_step(run: Path) -> int:
    """The last step in a run's metrics; -1 where there is none."""
    try:
        last = (run / "metrics.csv").read_bytes().splitlines(keepends=True)[-1]
    except (FileNotFoundError, IndexError):
        return -1
    step = last.split(b",")[0]
    return int(step) if last.endswith(b"\n") and step.isdigit() else -1


def differences(whole: Path, other: Path) -> Iterator[str]:
    """What two runs differ in, one line each."""
    for kind in ("last", "best"):
        name = f"checkpoints/{kind}.ckpt"
        yield from unequal(load(whole / name), load(other / name), name)
    yield from unequal(metrics(whole), metrics(other), "metrics.csv")
    curves = scalars(other)
    yield from unequal(scalars(whole), curves, "TensorBoard")
    for name, points in curves.items():
        steps = [step for step, _ in points]
        # Lightning adds the epoch to whatever it logs, so twice to a step that is validated.
        if name != "epoch" and steps != sorted(set(steps)):
            yield f"TensorBoard/{name}: the steps do not increase: {steps}"
    yield from unequal(*((run / "samples.txt").read_text() for run in (whole, other)), "samples.txt")


def unequal(one: Any, other: Any, name: str) -> Iterator[str]:
    """Names the leaves in which two values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted((one.keys() | other.keys()) - FORGOTTEN, key=str):
            if key in one and key in other:
                yield from unequal(one[key], other[key], f"{name}/{key}")
            else:
                yield f"{name}/{key}: only in the {'uninterrupted' if key in one else 'resumed'} run"
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from unequal(left, right, f"{name}/{number}")
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if one.dtype != other.dtype or not torch.equal(one, other):
            yield f"{name}: tensors differ"
    elif type(one) is not type(other) or one != other:
        yield f"{name}: {str(one)[:200]} in the uninterrupted run, {str(other)[:200]} in the resumed one"


def load(checkpoint: Path) -> dict[str, Any]:
    """A checkpoint's content."""
    content: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    return content


def metrics(run: Path) -> dict[str, dict[str, str]]:
    """The values of `metrics.csv` as they are written, by step."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = {row["step"]: {name: value for name, value in row.items() if name not in TIMED} for row in rows}
    if len(table) != len(rows):
        raise RunError(f"{run}/metrics.csv has a step twice")
    return table


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """The points of each curve that TensorBoard shows."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    names = [name for name in events.Tags()["scalars"] if name not in TIMED]
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in names}


def steps_to_kill(random_: random.Random, steps: int) -> list[int]:
    """Two steps: one after the first checkpoint, one that the resumed run reaches."""
    return [random_.randint(steps // 5, steps // 2), random_.randint(steps * 3 // 5, steps * 17 // 20)]


def main() -> int:
    """Returns 0 if all settings are identical."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", type=int, nargs="+", default=range(8), help="numbers from 0 to 7")
    parser.add_argument("--steps", type=int, default=200, help="optimizer steps of a run")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="chooses where runs are killed")
    parser.add_argument("--folder", type=Path, help="where to run and leave everything; else a temporary one")
    args = parser.parse_args()
    print(f"seed {args.seed}", flush=True)
    identical = 0
    with tempfile.TemporaryDirectory() as temporary:

        def one(number: int) -> bool:
            folder = (args.folder or Path(temporary)) / str(number)
            folder.mkdir(parents=True)
            kills = steps_to_kill(random.Random(f"{args.seed} {number}"), args.steps)
            history, found = check(SETTINGS[number], folder, args.steps, kills)
            lines = [f"{number}  {SETTINGS[number]}: {history}: {'differs' if found else 'identical'}"]
            lines += [f"     {line}" for line in found[:20]]
            lines += [f"     and {len(found) - 20} more"] if len(found) > 20 else []
            print("\n".join(lines), flush=True)
            return not found

        # Two processes at a time.
        for processes in (1, 2):
            chosen = [number for number in args.settings if SETTINGS[number].processes == processes]
            with ThreadPoolExecutor(2 // processes) as pool:
                identical += sum(pool.map(one, chosen))
    print(f"resume: {identical}/{len(args.settings)} identical")
    return 0 if identical == len(args.settings) else 1


if __name__ == "__main__":
    sys.exit(main())
