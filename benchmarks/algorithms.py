"""Exact answers on made-up sequences. Usage: python benchmarks/algorithms.py.

Each row is trained by `lightning-xt fit -c configs/translation/copy.yaml` with other options and measured by
`lightning-xt test` on 10,000 unseen sequences: the fraction answered without a wrong token, the end included.

    copy_twice, reverse, sort    32 of 16 symbols, as in training
    length_NAME                  copying, trained on 1 to 32 symbols and tested on 64, with the positions called NAME:
                                 in encoder, decoder and cross-attention

`seconds` are those of `fit`, everything included. Options after `--` go to `fit`.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from common import report, say

CONFIGS = Path(__file__).parents[1] / "configs" / "translation"
TASKS = ("copy_twice", "reverse", "sort")
POSITIONS = {
    "extrapolating": (),
    "rotary": ("Rotary", "Rotary", "Rotary"),
    "alibi": ("ALiBi", "ALiBi", "ALiBi"),
    "relative_bias": ("RelativeBias", "RelativeBias", "RelativeBias"),
    "none": (None, None, None),
}
"""Positions of encoder, decoder and cross-attention by name; () = those of copy_length.yaml."""


def main() -> None:
    options = parse()
    rows = {}
    for task in options.tasks:
        rows[task] = measure_row([f"-c={CONFIGS / 'copy.yaml'}", f"--data.task={task}"], options)
    with tempfile.TemporaryDirectory() as folder:
        for name in options.positions:
            recipe = [f"-c={CONFIGS / 'copy_length.yaml'}", *overlay(name, Path(folder))]
            rows[f"length_{name}"] = measure_row(recipe, options)
    report(rows, "cpu")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="*", default=TASKS, choices=TASKS, help="rows of lengths as in training")
    parser.add_argument(
        "--positions", nargs="*", default=list(POSITIONS), choices=list(POSITIONS), help="other lengths"
    )
    parser.add_argument("--seeds", type=int, default=5, help="how often each row is trained")
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options = parser.parse_args(sys.argv[1:at])
    options.rest = sys.argv[at + 1 :]
    return options


def overlay(name: str, folder: Path) -> list[str]:
    """Return the options of `fit` that choose positions, without the windows of the recipe."""
    if not POSITIONS[name]:
        return []
    encoder, decoder, across = POSITIONS[name]
    own = {
        "encoder": {"attention": {"position": encoder, "window": None}},
        "decoder": {"attention": {"position": decoder, "window": None}, "cross_attention": {"position": across}},
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({"model": {"init_args": own}}))
    return [f"-c={file}"]


def measure_row(flags: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    """Return a row: the median over the seeds, and the result of each."""
    found = [run_once(flags, seed, options.rest) for seed in range(options.seeds)]
    exact, seconds = zip(*found, strict=True)
    return {
        "value": round(statistics.median(exact), 4),
        "seeds": [round(each, 4) for each in exact],
        "seconds": [round(each, 1) for each in seconds],
        "repeats": options.seeds,
    }


def run_once(flags: Sequence[str], seed: int, rest: Sequence[str]) -> tuple[float, float]:
    """Return the fraction of exact answers, and the seconds of training."""
    with tempfile.TemporaryDirectory() as folder:
        root = f"--trainer.default_root_dir={folder}"
        start = time.perf_counter()
        run = command("fit", *flags, root, f"--seed_everything={seed}", f"--data.seed={seed}", *rest)["run"]
        seconds = time.perf_counter() - start
        exact = float(command("test", f"-c={run}/config.yaml", "--ckpt_path=last")["test/exact_match"])
    say(f"{' '.join(flags)} seed {seed}: {exact:.4f} exact after {seconds:.0f} s")
    return exact, seconds


def command(name: str, *args: str) -> dict[str, str]:
    """Run a command, and return the values of its last lines."""
    flags = [part for arg in args for part in (arg.split("=", 1) if arg.startswith("-c=") else [arg])]
    done = subprocess.run(
        [sys.executable, "-m", "lightning_xt", name, *flags], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        say(done.stdout)
        sys.exit(done.returncode)
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


if __name__ == "__main__":
    main()
