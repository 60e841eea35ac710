"""Architectures against each other, at equal parameters and equal bytes. Usage: python benchmarks/architectures.py.

A leg is a file of `configs/architectures` at small sizes, with the optimizer of its recipe; gpt2 meets modern_small by
default. All train by `lightning-xt fit` on Python's standard library with the schedule of the quickstart, on the same
windows for a seed, and are measured by the bits per byte of the whole validation split after the last step. The rate of
learning of each is the best of three in shorter runs on another seed; if it is the highest or the lowest, its
neighbour is tried too. `welch` is the p-value of Welch's t-test, two-sided, for no difference of the means over seeds.

Each run is kept in --folder, and the command, given again, continues where it was stopped.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import command, report, say

from lightning_xt.commands.ablation.mean_tests import compare_means
from lightning_xt.training.language_model import LanguageModel

TUNING_SEED = 100
TOLERANCE = 0.01
"""Largest difference between the numbers of parameters, as a fraction."""


@dataclass(frozen=True)
class Leg:
    """An architecture with its sizes.

    Args:
        options: for the command line, after the quickstart and the architecture.
        rates: the first three learning rates to try, each twice the one before; a single one is not tuned.
        set_rate: options of a learning rate.
        architecture: name of its file.
    """

    architecture: str
    options: tuple[str, ...]
    rates: tuple[float, ...]
    set_rate: Callable[[float], tuple[str, ...]]


def set_adamw(rate: float) -> tuple[str, ...]:
    """Return the options of a learning rate for all parameters."""
    return (f"--model.optimizer.lr={rate}",)


def set_muon(rate: float) -> tuple[str, ...]:
    """Return the options of a learning rate for matrices, and in its proportion for the rest."""
    return (f"--model.optimizer.lr={rate}", f"--model.optimizer.adamw_lr={0.15 * rate:.6g}")


SIZES = ("--model.decoder.dim=96", "--model.decoder.depth=3", "--data.seq_len=128", "--data.batch_size=8")
# A wider feedforward makes up for the table of the other's head.
POSITIONS = (
    "--model.decoder.feedforward.hidden_dim=400",
    '--model.decoder.embeddings=[{"class_path": "LearnedPositions", "init_args": {"max_length": 128}}]',
)
MUON = ("--model.optimizer=MuonAdamW", "--model.optimizer.weight_decay=0.1")
LANES = ("--model.decoder.dim=96", "--model.decoder.depth=3", "--data.seq_len=32", "--data.batch_size=32")
LANES += ("--data.order=lanes", "--data.eval_lanes=32", "--model.decoder.shift=TokenShift")
SEGMENTS = '--model.decoder.segments={"class_path": "SegmentRecurrence", "init_args": {"length": 32, "memory": 64}}'
LEGS = {
    "gpt2": Leg("gpt2", (*SIZES, *POSITIONS), (1e-3, 2e-3, 4e-3), set_adamw),
    "modern_small": Leg("modern_small", SIZES, (0.01, 0.02, 0.04), set_muon),
    "gpt2_muon": Leg("gpt2", (*SIZES, *POSITIONS, *MUON), (0.01, 0.02, 0.04), set_muon),
    "modern_small_adamw": Leg(
        "modern_small", (*SIZES, "--model.optimizer=AdamW", "--model.optimizer.betas=[0.9,0.95]",
                         "--model.optimizer.weight_decay=0.1"), (1e-3, 2e-3, 4e-3), set_adamw
    ),
    "without_memory": Leg("modern_small", LANES, (0.04,), set_muon),
    "with_memory": Leg("modern_small", (*LANES, SEGMENTS), (0.04,), set_muon),
}  # fmt: skip


def main() -> None:
    options = parse()
    first, second = options.legs
    results = {name: contest(name, options) for name in options.legs}
    counts = [results[name]["parameters"] for name in options.legs]
    if abs(counts[0] - counts[1]) > TOLERANCE * min(counts):
        sys.exit(f"{first} has {counts[0]:,} parameters and {second} {counts[1]:,}: more than {TOLERANCE:.0%} apart")
    rows = {name: {**row, "value": round(statistics.mean(row["each"]), 4)} for name, row in results.items()}
    if options.seeds > 1:
        rows["welch"] = compare(results[first]["each"], results[second]["each"])
    report(rows, "cpu")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--legs", nargs=2, choices=list(LEGS), default=["gpt2", "modern_small"], help="the two")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each")
    parser.add_argument("--bytes", type=int, default=400_000, help="bytes of training of each run")
    parser.add_argument("--tuning_bytes", type=int, default=300_000, help="those of a run for the learning rate")
    parser.add_argument("--folder", type=Path, default=Path("runs/architectures"), help="of the finished runs")
    parser.add_argument("options", nargs="*", help="for the command line of every run, after --")
    return parser.parse_args()


def contest(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Choose the learning rate of a leg, run its seeds, and return its row."""

    def measure(rate: float) -> float:
        return float(run(name, rate, TUNING_SEED, options.tuning_bytes, options)["bits_per_byte"])

    rates = LEGS[name].rates
    tried = tune(measure, rates) if len(rates) > 1 else dict.fromkeys(rates)
    rate = min(tried, key=lambda rate: tried[rate] or 0.0)
    runs = [run(name, rate, seed, options.bytes, options) for seed in range(options.seeds)]
    each = [made["bits_per_byte"] for made in runs]
    return {
        "unit": "bits per byte of the whole validation split",
        "spread": [min(each), max(each)],
        "deviation": round(statistics.stdev(each), 5) if len(each) > 1 else None,
        "each": each,
        "parameters": runs[0]["parameters"],
        "bytes_seen": runs[0]["bytes_seen"],
        "rate": rate,
        "tuning": {f"{key:g}": value for key, value in sorted(tried.items())},
        "seconds": round(statistics.mean(made["seconds"] for made in runs), 1),
        "repeats": len(each),
    }


def tune(measure: Callable[[float], float], rates: Sequence[float]) -> dict[float, float]:
    """Return the results of learning rates: the given ones, and the neighbour of the best if that is at an end."""
    tried = {rate: measure(rate) for rate in rates}
    best = min(tried, key=lambda rate: tried[rate])
    if best in (min(rates), max(rates)):
        further = best / 2 if best == min(rates) else best * 2
        tried[further] = measure(further)
    return tried


def run(name: str, rate: float, seed: int, length: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the result of a run, which is trained unless the folder has it."""
    leg = LEGS[name]
    arguments = [*leg.options, *leg.set_rate(rate), *options.options]
    file = options.folder / f"{name}-{rate:g}-{seed}-{length}.json"
    if file.is_file() and (kept := json.loads(file.read_text()))["arguments"] == arguments:
        return dict(kept)
    started = time.perf_counter()
    made = {"arguments": arguments, **train(leg.architecture, arguments, seed, length, options.folder)}
    made["seconds"] = round(time.perf_counter() - started, 1)
    options.folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(made))
    say(f"{name}, rate {rate:g}, seed {seed}: {made['bits_per_byte']:.4f} bits per byte, {made['seconds']:.0f} s")
    return made


def train(architecture: str, arguments: list[str], seed: int, length: int, folder: Path) -> dict[str, Any]:
    """Train by the command line in this process, and return the result."""
    sizes = dict(each.removeprefix("--data.").split("=", 1) for each in arguments if each.startswith("--data."))
    per_step = int(sizes["seq_len"]) * int(sizes["batch_size"])
    steps = max(1, length // per_step)
    options = ["fit", "-c", "language/quickstart.yaml", "-c", f"architectures/{architecture}.yaml", "--name=contest"]
    options += [f"--trainer.max_steps={steps}", f"--validate_every={steps}", f"--seed_everything={seed}"]
    options += [f"--data.seed={seed}", "--sample_text.prompts=[]", f"--trainer.default_root_dir={folder}"]
    options += ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.enable_progress_bar=false"]
    said = command(*options, *arguments)
    model = LanguageModel.from_config(Path(said["run"]) / "config.yaml")
    return {
        "bits_per_byte": float(said["val/bits_per_byte"]),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "bytes_seen": steps * per_step,
    }


def compare(first: Sequence[float], second: Sequence[float]) -> dict[str, Any]:
    """Return Welch's t-test of two samples."""
    found = compare_means(first, second)
    assert found is not None
    return {
        "value": found.p,
        "unit": "p, two-sided",
        "difference": round(found.value, 4),
        "t": round(found.value / found.error, 2),
        "degrees": round(found.degrees, 2),
    }


if __name__ == "__main__":
    main()
