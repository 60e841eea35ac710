"""Run every malformed input of the corpus, and print the wrong answers.

    python tests/hostile/check.py [--only TEXT] [--apart N] [--workers N]

Each case runs in a separate folder, in a process that runs many; every N-th, by default the 20th, runs in a separate
process too. The last line is `malformed: N/N clear`.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hostile.base import make_base
from hostile.case import find_problems
from hostile.corpus import CASES


def run_case(number: int, folder: Path, apart: bool) -> tuple[list[str], float]:
    """Return the problems of a case's answer, and its seconds."""
    begin = time.perf_counter()
    found = find_problems(CASES[number], folder / "base", folder / f"{number}")
    if apart:
        found += find_problems(CASES[number], folder / "base", folder / f"{number}-apart", apart=True)
    return found, time.perf_counter() - begin


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="only cases with this in their name")
    parser.add_argument("--apart", type=int, default=20, help="every N-th case runs in a separate process too")
    parser.add_argument("--workers", type=int, default=2, help="processes that run the cases")
    options = parser.parse_args()
    chosen = [number for number, case in enumerate(CASES) if options.only in case.name]
    clear = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "base").mkdir()
        make_base(folder / "base")
        # Spawned: a forked process would lack torch's threads.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
            apart = [place % options.apart == 0 for place in range(len(chosen))]
            results = pool.map(run_case, chosen, [folder] * len(chosen), apart)
            for number, (found, seconds) in zip(chosen, results, strict=True):
                clear += not found
                if found:
                    print(f"{CASES[number].name} ({seconds:.1f} s)", *found, sep="\n  ", flush=True)
    print(f"malformed: {clear}/{len(chosen)} clear")
    return 0 if clear == len(chosen) > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
