"""Kill runs, preempt them, kill them while they save, give them broken input, and count the runs that survive.

    python tests/chaos/check.py [--suites kills preemptions saves malformed] [--seed 1] [--folder FOLDER]

Every run is a separate command line in separate processes. It is compared with an uninterrupted run:
checkpoints, metrics, TensorBoard and samples must be the same, bit for bit; timings are ignored.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

from chaos import kills, preemptions, saves

STEPS = 240
Outcome = tuple[int, int, str, list[str]]
"""Number of good runs, number of runs, what they ran, and the problems."""


def plan_kills(folder: Path, seed: str) -> list[tuple[int, Callable[[], Outcome]]]:
    """Return the jobs of the suite, each with the number of processes it keeps busy."""

    def check(number: int) -> Outcome:
        setting = kills.SETTINGS[number]
        planned = kills.make_plans(setting, 10, STEPS, f"{seed} {number}")
        history, found = kills.check(setting, folder / f"kills-{number}", planned, STEPS)
        return (0 if found else len(planned)), len(planned), f"{setting}: {history}", found

    return [(each.processes, lambda n=n: check(n)) for n, each in enumerate(kills.SETTINGS)]


def plan_preemptions(folder: Path, seed: str) -> list[tuple[int, Callable[[], Outcome]]]:
    """Return the jobs of the suite, each with its number of processes."""

    def check(number: int) -> Outcome:
        setting = preemptions.SETTINGS[number]
        planned = preemptions.make_plans(setting, 10, STEPS, f"{seed} {number}")
        clean, found = preemptions.check(setting, folder / f"preemptions-{number}", planned, STEPS)
        return clean, len(planned), str(setting), found

    return [(each.processes, lambda n=n: check(n)) for n, each in enumerate(preemptions.SETTINGS)]


def plan_saves(folder: Path, seed: str) -> list[tuple[int, Callable[[], Outcome]]]:
    """Return the jobs of the suite, each with its number of processes."""

    def check(number: int) -> Outcome:
        planned = saves.make_plans(15, STEPS, f"{seed} {number}")
        intact, found = saves.check(folder / f"saves-{number}", planned, STEPS)
        return intact, len(planned), f"saves {number}", found

    return [(1, lambda n=n: check(n)) for n in range(2)]


SUITES = {
    "kills": (plan_kills, "identical"),
    "preemptions": (plan_preemptions, "clean"),
    "saves": (plan_saves, "intact"),
}


def run(suite: str, folder: Path, seed: str) -> tuple[str, bool]:
    """Run a suite, two processes at a time; return its line, and whether all runs were good."""
    jobs, word = SUITES[suite]
    good = total = 0
    made = jobs(folder, seed)
    for processes in (1, 2):
        chosen = [job for number, job in made if number == processes]
        with ThreadPoolExecutor(2 // processes) as pool:
            for outcome in pool.map(lambda job: job(), chosen):
                good, total = good + outcome[0], total + outcome[1]
                print(f"  {outcome[0]}/{outcome[1]}  {outcome[2]}", flush=True)
                for line in outcome[3][:20]:
                    print(f"     {line}", flush=True)
    return f"{suite}: {good}/{total} {word}", good == total


def main() -> int:
    """Return 0 if all runs were good."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suites", nargs="+", default=[*SUITES, "malformed"], choices=[*SUITES, "malformed"])
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="chooses the moments")
    parser.add_argument("--folder", type=Path, help="where to run and leave everything; else a temporary one")
    args = parser.parse_args()
    print(f"seed {args.seed}", flush=True)
    lines, passed = [], True
    with tempfile.TemporaryDirectory() as temporary:
        for suite in args.suites:
            began = time.monotonic()
            if suite == "malformed":
                done = subprocess.run([sys.executable, TESTS / "hostile/check.py"], capture_output=True, text=True)
                print(done.stdout + done.stderr, end="", flush=True)
                line, good = done.stdout.rstrip().rpartition("\n")[2], done.returncode == 0
            else:
                line, good = run(suite, args.folder or Path(temporary), str(args.seed))
            lines.append(line)
            passed = passed and good
            print(f"  {suite}: {(time.monotonic() - began) / 60:.0f} minutes", flush=True)
    print("\n".join(lines))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
