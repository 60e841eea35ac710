"""Time until a command does its work. Usage: python benchmarks/startup.py [--repeats 5] [--rows NAME ...].

Each row starts a process: of Python with torch alone, which no command can go below; of the command line for its help
and its version; of `fit` with the quickstart's recipe until its first optimizer step; of `generate` with a checkpoint
of that recipe until its first text is written. CPU seconds are those of the process and its children, user and system.

`--against FOLDER` measures another checkout in turn: then `ratio` is the median, over the repeats, of our CPU seconds
over its within one repeat.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import report, say
from startup_until import REACHED

UNTIL = str(Path(__file__).with_name("startup_until.py"))
ROOT = Path(__file__).parents[1]
RECIPE = ("-c", "language/quickstart.yaml")
RUN = ["fit", *RECIPE, "--trainer.max_steps=1", "--trainer.limit_val_batches=0", "--name=startup"]
"""The run that `generate` loads; its speed does not depend on the training."""
COMMAND = ["-m", "lightning_xt"]
ROWS = {
    "import_torch": ["-c", "import torch"],
    "version": [*COMMAND, "--version"],
    "help": [*COMMAND, "--help"],
    "fit_help": [*COMMAND, "fit", "--help"],
    "fit_first_step": [UNTIL, "step", "fit", *RECIPE],
    "generate_first_token": [UNTIL, "token", "generate", "runs/startup", "--prompt", "def main("],
}


@dataclass
class Seconds:
    """CPU and wall seconds of the starts of one row in one checkout."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def describe(self) -> dict[str, Any]:
        """Return the medians, and lowest and highest values."""
        return {
            "value": round(statistics.median(self.cpu), 3),
            "spread": [round(min(self.cpu), 3), round(max(self.cpu), 3)],
            "wall": round(statistics.median(self.wall), 3),
            "wall_spread": [round(min(self.wall), 3), round(max(self.wall), 3)],
            "repeats": len(self.cpu),
        }


def start(checkout: Path, folder: Path, arguments: list[str], seconds: Seconds | None = None) -> None:
    """Run Python with the arguments in a folder, with the package of a checkout; add what it takes."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    reached = REACHED if arguments[0] == UNTIL else 0
    with tempfile.TemporaryFile(dir=folder) as errors:
        begun = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=errors
        )
        _, status, used = os.wait4(child.pid, 0)
        wall = time.perf_counter() - begun
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != reached:
            errors.seek(0)
            text = errors.read().decode(errors="replace")
            raise SystemExit(f"{' '.join(arguments)} ended with {child.returncode} in {checkout}: {text}")
    if seconds is not None:
        seconds.cpu.append(used.ru_utime + used.ru_stime)
        seconds.wall.append(wall)


def measure(checkouts: list[Path], rows: list[str], repeats: int) -> dict[str, list[Seconds]]:
    """Measure the rows in each checkout in turn, each after a first start that fills caches."""
    found = {name: [Seconds() for _ in checkouts] for name in rows}
    with tempfile.TemporaryDirectory() as place:
        folders = [Path(place, str(number)) for number in range(len(checkouts))]
        for checkout, folder in zip(checkouts, folders, strict=True):
            folder.mkdir()
            if "generate_first_token" in rows:
                start(checkout, folder, [*COMMAND, *RUN])
            for name in rows:
                start(checkout, folder, ROWS[name])
        for repeat in range(repeats):
            for name in rows:
                for checkout, folder, seconds in zip(checkouts, folders, found[name], strict=True):
                    start(checkout, folder, ROWS[name], seconds)
                measured = " against ".join(f"{each.cpu[-1]:.2f}" for each in found[name])
                say(f"repeat {repeat + 1}/{repeats}  {name}: {measured} CPU seconds")
    return found


def summarize(ours: Seconds, theirs: Seconds | None = None) -> dict[str, Any]:
    """Return the row of this checkout, compared with the other one if there is one."""
    row = ours.describe()
    if theirs is not None:
        ratios = [a / b for a, b in zip(ours.cpu, theirs.cpu, strict=True)]
        row["ratio"] = round(statistics.median(ratios), 3)
        row["ratio_spread"] = [round(min(ratios), 3), round(max(ratios), 3)]
        row["against"] = theirs.describe()
    return row


def main() -> None:
    """Print the CPU seconds of each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--against", type=Path, help="another checkout of the package, measured in turn")
    args = parser.parse_args()
    if args.repeats < 1:
        parser.error(f"--repeats is {args.repeats}; it must be at least 1")
    if args.against is not None and not (args.against / "lightning_xt" / "__main__.py").is_file():
        parser.error(f"--against {args.against} has no lightning_xt; give the folder of a checkout")
    checkouts = [ROOT, *([] if args.against is None else [args.against.resolve()])]
    rows = {name: summarize(*found) for name, found in measure(checkouts, args.rows, args.repeats).items()}
    report(rows, "cpu", ("lightning", "jsonargparse"))


if __name__ == "__main__":
    main()
