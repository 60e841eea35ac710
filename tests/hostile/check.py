"""Answers every malformed input of the corpus, and says which are not answered as they should be.

    python tests/hostile/check.py [--only TEXT] [--apart N]

Each runs in this process, in a folder of its own; every N-th, 20 unless another is asked for, in a process of its own
too. The last line is `malformed: N/N clear`.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from hostile.base import make_base
from hostile.case import problems
from hostile.corpus import CASES


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="only cases with this in their name")
    parser.add_argument("--apart", type=int, default=20, help="every so many-th in a process of its own too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [case for case in CASES if options.only in case.name]
    clear = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "base").mkdir()
        make_base(folder / "base")
        for number, case in enumerate(chosen):
            begin = time.perf_counter()
            found = problems(case, folder / "base", folder / f"{number}")
            if number % options.apart == 0:
                found += problems(case, folder / "base", folder / f"{number}-apart", apart=True)
            clear += not found
            if found:
                print(f"{case.name} ({time.perf_counter() - begin:.1f} s)", *found, sep="\n  ", flush=True)
    print(f"malformed: {clear}/{len(chosen)} clear")
    return 0 if clear == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
