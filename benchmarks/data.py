"""Cost of a corpus of 1 GB. Usage: python benchmarks/data.py [--size 1000] [--steps 200] [--repeats 3] [--rows NAME].

Each row trains through the command line, in separate processes. The page cache is `cold` if the corpus was dropped
from it before the run, which works only on a real disk.
"""

import argparse
import csv
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from common import report, say
from lightning.pytorch import Callback, LightningModule, Trainer

MEGABYTE = 10**6
QUICKSTART = Path(__file__).parents[1] / "configs" / "language" / "quickstart.yaml"
COMMON = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--sample_text.prompts=[]"]
COMMON += ["--trainer.log_every_n_steps=10", "--trainer.default_root_dir=runs", "--name=data"]
# The quickstart's batches, so that a step of the small model takes some 20 ms on one core.
TOKENS = 4 * 256
COMMON += ["--data.batch_size=4", "--data.seq_len=256"]
MODELS = {
    "small": ["--model.decoder.dim=64", "--model.decoder.depth=2", "--model.decoder.attention.heads=2"],
    "quickstart": ["-c", str(QUICKSTART)],
}


class Memory(Callback):
    """Callback that records the anonymous memory of all processes of a run when training ends."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        Path("memory.json").write_text(json.dumps(sum(anonymous_memory(process) for process in ["self", *children])))


class Found(Callback):
    """Callback that records the metrics of a validation, with all digits."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            Path("found.json").write_text(json.dumps(float(trainer.callback_metrics["val/bits_per_byte"])))


def anonymous_memory(process: str) -> float:
    """Return the anonymous memory of a process in MB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) * 1024 / MEGABYTE


def write_words(file: Path, size: int) -> None:
    """Write pseudo-random words, 10 MB repeatedly."""
    draw = random.Random(0)
    words = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(1, 9))) for _ in range(5000)]
    block = " ".join(draw.choices(words, k=2 * MEGABYTE)).encode()[: 10 * MEGABYTE]
    with file.open("wb") as out:
        while size > 0:
            out.write(block[:size])
            size -= len(block)
        out.flush()
        # The page cache drops only pages that are on the disk.
        os.fsync(out.fileno())


def fit(folder: Path, corpus: Path, options: list[str]) -> Path:
    """Train in a new folder, and return it."""
    work = Path(tempfile.mkdtemp(dir=folder))
    data = ["--data=TextFiles", f"--data.path={corpus}"]
    # Config files first: a later option overrides them.
    configs = options[: 2 * options.count("-c")]
    command(work, "fit", [*configs, *data, *options[len(configs) :], *COMMON])
    return work


def command(work: Path, name: str, options: list[str]) -> None:
    """Run a command of the command line."""
    # The folder of this file, for the callbacks in it.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    arguments = [sys.executable, "-m", "lightning_xt", name, *options]
    done = subprocess.run(arguments, cwd=work, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr}")


def drop_from_cache(file: Path) -> None:
    """Drop a file from the page cache, so that its next reader waits for the disk."""
    with file.open("rb") as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure_memory(folder: Path, large: Path, workers: int, steps: int, repeats: int) -> dict[str, Any]:
    """Return the anonymous memory in MB that the large corpus takes beyond a corpus of 1 MB."""
    tiny = folder / "tiny.txt"
    write_words(tiny, MEGABYTE)
    options = [*MODELS["small"], f"--trainer.max_steps={steps}", f"--data.num_workers={workers}"]
    # Validating 50 MB would take minutes.
    options += ["--data.validation=0", "--trainer.callbacks+=data.Memory"]
    more = []
    for repeat in range(repeats):
        taken = [json.loads((fit(folder, corpus, options) / "memory.json").read_text()) for corpus in (tiny, large)]
        more.append(taken[1] - taken[0])
        say(f"memory, {workers} workers, repeat {repeat + 1}/{repeats}: {taken[0]:.1f} MB, {taken[1]:.1f} MB")
    return {
        "value": round(statistics.median(more), 1),
        "unit": "MB",
        "spread": [round(min(more), 1), round(max(more), 1)],
        "repeats": repeats,
    }


def measure_waiting(folder: Path, corpus: Path, workers: int, steps: int, repeats: int) -> dict[str, Any]:
    """Return the percentage of training time spent waiting for data: the worst of the medians, and each of them."""
    shares: dict[str, list[float]] = {f"{model}_{cache}": [] for model in MODELS for cache in ("warm", "cold")}
    step_times: dict[str, list[float]] = {model: [] for model in MODELS}
    for repeat in range(repeats):
        for name in shares:
            model, _, cache = name.partition("_")
            drop_from_cache(corpus) if cache == "cold" else corpus.read_bytes()
            options = [*MODELS[model], f"--trainer.max_steps={steps}", f"--data.num_workers={workers}"]
            work = fit(folder, corpus, [*options, "--data.validation=0", "--validate_every=null"])
            share, step_ms = read_waiting(work / "runs/data/0/metrics.csv")
            shares[name].append(100 * share)
            step_times[model].append(step_ms)
            say(f"waiting, {workers} workers, {name}, {repeat + 1}/{repeats}: {100 * share:.3f} % of {step_ms:.1f} ms")
    medians = {name: round(statistics.median(each), 3) for name, each in shares.items()}
    steps_ms = {f"{model}_step_ms": round(statistics.median(each), 1) for model, each in step_times.items()}
    return {"value": max(medians.values()), "unit": "%", **medians, **steps_ms, "repeats": repeats}


def read_waiting(metrics: Path) -> tuple[float, float]:
    """Return the fraction of a run's time spent waiting, and the milliseconds of its steps."""
    with metrics.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["speed/data_wait"]]
    # Each row covers the same number of tokens.
    times = [1 / float(row["speed/tokens_per_second"]) for row in rows]
    waited = sum(float(row["speed/data_wait"]) * time for row, time in zip(rows, times, strict=True))
    return waited / sum(times), 1000 * statistics.mean(times) * TOKENS


def compare_validations(folder: Path) -> dict[str, Any]:
    """Return the largest difference in bits per byte over batch sizes and two processes."""
    corpus = folder / "validated.txt"
    write_words(corpus, 200_000)
    options = ["--data.validation=0.5", "--trainer.max_steps=20", "--trainer.callbacks+=data.Found"]
    work = fit(folder, corpus, [*MODELS["small"], *options])
    found = {}
    for processes in (1, 2):
        for batch_size in (1, 7, 64):
            options = [f"--data.eval_batch_size={batch_size}", f"--trainer.devices={processes}"]
            options.append(f"--trainer.strategy={'ddp' if processes > 1 else 'auto'}")
            command(work, "validate", ["-c", "runs/data/0/config.yaml", "--ckpt_path=last", *options])
            name = f"{processes}_processes_batches_of_{batch_size}"
            found[name] = json.loads((work / "found.json").read_text())
            say(f"validation, {name}: {found[name]}")
    return {"value": max(found.values()) - min(found.values()), "unit": "bits per byte", **found, "repeats": 1}


def rows(folder: Path, size: int, steps: int, repeats: int) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Return the rows by name, with the functions that measure them."""
    corpus = folder / "corpus.txt"
    write_words(corpus, size * MEGABYTE)
    for workers in (0, 2):
        yield (
            f"rss_anon_{workers}_workers",
            lambda workers=workers: measure_memory(folder, corpus, workers, steps, repeats),
        )
    for workers in (0, 2):
        yield (
            f"data_wait_{workers}_workers",
            lambda workers=workers: measure_waiting(folder, corpus, workers, steps, repeats),
        )
    yield "validation_batch_sizes", lambda: compare_validations(folder)


def main() -> None:
    """Print the rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1000, help="MB of the corpus")
    parser.add_argument("--steps", type=int, default=200, help="optimizer steps of a run")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", nargs="+", help="only these")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measured = rows(Path(folder), args.size, args.steps, args.repeats)
        report({name: measure() for name, measure in measured if args.rows is None or name in args.rows}, "cpu")


if __name__ == "__main__":
    main()
