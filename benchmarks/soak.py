"""Leaks of a long run. Usage: python benchmarks/soak.py [--minutes 10] [--settings NAME ...] [--warm_up 0.25].

Each of the first three settings is a run, as follows. The last two are one process each that generates and validates
300 times with Python's collector disabled; see `uncollected.py`.

A run trains through the command line, in a separate process, for the given minutes, with a validation, samples
and saved checkpoints every few seconds, and then gets SIGTERM. Meanwhile its anonymous memory, open files, threads and
child processes are counted twice a second. The warm-up, a fraction of the time, is not counted.

Slopes are those of lines through the means of 20 equal parts of the time, with their standard errors. A setting is flat
if the mean numbers of files, threads and children in the last third of the time are not one more than in the first, and
memory, that of the process and the mean of its children, grows by less than two standard errors or in 1,000 steps by
less than 0.1 % of its size. (A batch on its way from a loader's worker is an open file too.)

Two caches of libraries would hide the memory that a run keeps, so they are kept small: oneDNN, torch's library of
products on CPUs, keeps 1,024 of them, one for each shape, and completions of many lengths bring new shapes for hours;
and glibc keeps freed memory between blocks in use.
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from common import report, say
from data import MEGABYTE, anonymous_memory, write_words

COMMON = """
seed_everything: 0
trainer: {accelerator: cpu, devices: 1, max_steps: 100000000, gradient_clip_val: 1.0, log_every_n_steps: 10,
  enable_progress_bar: false}
checkpoint_every: 25
keep_checkpoints: 2
validate_every: 50
"""
LANGUAGE = """
data:
  class_path: TextFiles
  init_args: {path: ../corpus.txt, seq_len: 64, batch_size: 8, validation: 0.01, test: 0.01}
model:
  class_path: LanguageModel
  init_args:
    decoder: {dim: 64, depth: 2, dropout: 0.1, attention: {heads: 2, position: Rotary}}
sample_text: {generation: {max_new_tokens: 32}}
"""
TRANSLATION = """
data:
  class_path: ParallelText
  init_args: {path: ../pairs.en, target_path: ../pairs.de, validation: 0.01, max_tokens: 512,
    tokenizer: {class_path: BPE, init_args: {vocab_size: 1000}}}
model:
  class_path: Seq2Seq
  init_args:
    encoder: {dim: 64, depth: 1, attention: {heads: 2, position: Rotary}}
    decoder: {dim: 64, depth: 1, dropout: 0.1, attention: {heads: 2, position: Rotary}}
"""
SETTINGS = {
    "language_0_workers": (LANGUAGE, ["--data.num_workers=0"]),
    "language_2_workers": (LANGUAGE, ["--data.num_workers=2"]),
    "translation": (TRANSLATION, []),
}
UNCOLLECTED = {f"{kind}_uncollected": kind for kind in ("language", "translation")}
"""Settings that do not train, with their kind of model."""
SMALL_CACHES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16", "MALLOC_MMAP_THRESHOLD_": "65536"}
EVERY = 0.5
"""Seconds between two counts."""
PARTS = 20
ENDS = 120
"""Seconds that a run may take to start, and to stop."""
PREEMPTED = 75


@dataclass(frozen=True)
class Look:
    """Resources of a process at one time.

    Args:
        seconds: since the first step was logged.
        step: optimizer steps logged.
        memory: MB of anonymous memory of the process.
        child_memory: MB of the mean child. 0 without children.
        files: open files.
        threads: of the process.
        children: processes that it has started.
    """

    seconds: float
    step: int
    memory: float
    child_memory: float
    files: int
    threads: int
    children: int


def write_inputs(folder: Path) -> None:
    """Write a corpus, and pairs of sentences and their words in reverse."""
    write_words(folder / "corpus.txt", MEGABYTE)
    words = (folder / "corpus.txt").read_text().split()
    draw = random.Random(0)
    with (folder / "pairs.en").open("w") as sources, (folder / "pairs.de").open("w") as targets:
        for _ in range(10_000):
            sentence = draw.sample(words[:2000], k=draw.randint(2, 12))
            sources.write(" ".join(sentence) + "\n")
            targets.write(" ".join(reversed(sentence)) + "\n")


def count_resources(process: int, step: int, since: float) -> Look:
    """Count the resources of a process."""
    # A child may end meanwhile.
    memories = []
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    for child in children:
        try:
            memories.append(anonymous_memory(child))
        except (OSError, StopIteration):
            continue
    return Look(
        seconds=time.monotonic() - since,
        step=step,
        memory=anonymous_memory(str(process)),
        child_memory=statistics.mean(memories) if memories else 0.0,
        files=len(os.listdir(f"/proc/{process}/fd")),
        threads=len(os.listdir(f"/proc/{process}/task")),
        children=len(children),
    )


def last_step(metrics: Path) -> int:
    """Return the step of the last complete line; -1 if there is none."""
    if not metrics.is_file():
        return -1
    with metrics.open("rb") as file:
        file.seek(max(metrics.stat().st_size - 2000, 0))
        lines = file.read().splitlines(keepends=True)
    steps = [line.split(b",")[0] for line in lines[1:] if line.endswith(b"\n")]
    return next((int(step) for step in reversed(steps) if step.isdigit()), -1)


def soak(folder: Path, name: str, minutes: float) -> list[Look]:
    """Train in a setting and count its resources until the time is up."""
    config, options = SETTINGS[name]
    work = folder / name
    work.mkdir()
    (work / "soak.yaml").write_text(COMMON + config)
    command = [sys.executable, "-m", "lightning_xt", "fit", "-c", "soak.yaml", *options]
    looks: list[Look] = []
    with (work / "output.txt").open("wb") as output:
        process = subprocess.Popen(command, cwd=work, stdout=output, stderr=output, env={**os.environ, **SMALL_CACHES})
    try:
        metrics = work / "runs/soak/0/metrics.csv"
        deadline = time.monotonic() + ENDS
        while last_step(metrics) < 0 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(EVERY)
        since = reported = time.monotonic()
        while process.poll() is None and time.monotonic() < since + 60 * minutes:
            looks.append(count_resources(process.pid, last_step(metrics), since))
            if time.monotonic() > reported + 20:
                reported = time.monotonic()
                say(f"{name}: {looks[-1]}")
            time.sleep(EVERY)
        process.send_signal(signal.SIGTERM)
        code = process.wait(ENDS)
    finally:
        process.kill()
        process.wait()
    if code != PREEMPTED or not looks:
        raise SystemExit(f"{name} ended with exit code {code}:\n{(work / 'output.txt').read_text()}")
    return looks


def count_uncollected(kind: str, times: int) -> dict[str, Any]:
    """Return the row of generations and validations without Python's collector."""
    command = [sys.executable, str(Path(__file__).with_name("uncollected.py")), kind, "--times", str(times)]
    done = subprocess.run(command, env={**os.environ, **SMALL_CACHES}, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def slope(xs: list[float], ys: list[float]) -> list[float]:
    """Return the slope of y over x and its standard error, of the line through the means of equal parts."""
    borders = [round(part * len(xs) / PARTS) for part in range(PARTS + 1)]
    means = [(statistics.mean(xs[a:b]), statistics.mean(ys[a:b])) for a, b in pairwise(borders) if b > a]
    x, y = (statistics.mean(column) for column in zip(*means, strict=True))
    spread = sum((a - x) ** 2 for a, _ in means)
    if spread == 0 or len(means) < 3:
        return [float("inf"), 0.0]
    rise = sum((a - x) * (b - y) for a, b in means) / spread
    rest = sum((b - y - rise * (a - x)) ** 2 for a, b in means) / (len(means) - 2)
    return [rise, (rest / spread) ** 0.5]


def memory_row(looks: list[Look], values: list[float]) -> dict[str, Any]:
    """Return the growth of memory, and whether it is flat."""
    tenth = max(len(values) // 10, 1)
    hourly = slope([each.seconds / 3600 for each in looks], values)
    stepwise = slope([each.step / 1000 for each in looks], values)
    flat = stepwise[0] < 2 * stepwise[1] or stepwise[0] < 0.001 * statistics.mean(values)
    return {
        "start": round(statistics.mean(values[:tenth]), 2),
        "end": round(statistics.mean(values[-tenth:]), 2),
        "per_hour": [round(each, 3) for each in hourly],
        "per_1000_steps": [round(each, 4) for each in stepwise],
        "flat": flat or max(values) == 0,
    }


def count_row(values: list[int]) -> dict[str, Any]:
    """Return the least, mean and most of the first and last third, and whether they are flat."""
    third = max(len(values) // 3, 1)
    first, last = values[:third], values[-third:]
    start, end = ([min(part), round(statistics.mean(part), 2), max(part)] for part in (first, last))
    return {"start": start, "end": end, "flat": statistics.mean(last) < statistics.mean(first) + 1}


def row(looks: list[Look]) -> dict[str, Any]:
    """Return the row of one setting."""
    found = {
        "memory_mb": memory_row(looks, [each.memory for each in looks]),
        "child_memory_mb": memory_row(looks, [each.child_memory for each in looks]),
        "files": count_row([each.files for each in looks]),
        "threads": count_row([each.threads for each in looks]),
        "children": count_row([each.children for each in looks]),
    }
    return {
        "value": found["memory_mb"]["per_hour"][0],
        "unit": "MB per hour",
        "flat": all(each["flat"] for each in found.values()),
        "minutes": round((looks[-1].seconds - looks[0].seconds) / 60, 2),
        "steps": looks[-1].step - looks[0].step,
        **found,
    }


def main() -> None:
    """Print the rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="of each setting")
    names = [*SETTINGS, *UNCOLLECTED]
    parser.add_argument("--settings", nargs="+", choices=names, default=names, help="only these")
    parser.add_argument("--times", type=int, default=300, help="generations and validations without the collector")
    parser.add_argument("--warm_up", type=float, default=0.25, help="fraction of the minutes")
    args = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(Path(folder))
        for name in args.settings:
            if name in UNCOLLECTED:
                rows[name] = count_uncollected(UNCOLLECTED[name], args.times)
            else:
                looks = soak(Path(folder), name, args.minutes)
                rows[name] = row([each for each in looks if each.seconds >= 60 * args.warm_up * args.minutes])
            say(f"{name}: {rows[name]}")
    report(rows, "cpu")


if __name__ == "__main__":
    main()
