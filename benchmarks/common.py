"""Common parts of the benchmarks: legs in turn within one run, medians, and one JSON object as the last line."""

import contextlib
import datetime
import io
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch

from lightning_xt.cli import main as lightning_xt
from lightning_xt.system.processor_names import name_cpu
from lightning_xt.training.metrics.step_memory import record_allocations


def interleave(legs: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each leg. Legs take turns, so a machine that slows down slows them all."""
    seconds: dict[str, list[float]] = {name: [] for name in legs}
    for repeat in range(repeats):
        for name, leg in legs.items():
            start = time.perf_counter()
            leg()
            seconds[name].append(time.perf_counter() - start)
            print(f"repeat {repeat + 1}/{repeats}  {name}: {seconds[name][-1]:.2f} s", file=sys.stderr)
    return seconds


def row(ours: list[float], theirs: list[float]) -> dict[str, Any]:
    """Return our speed-up: the median over the repeats of the ratio within each."""
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    return {
        "value": round(statistics.median(ratios), 3),
        "ours": round(statistics.median(ours), 4),
        "theirs": round(statistics.median(theirs), 4),
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        "repeats": len(ratios),
    }


def measure_memory(step: Callable[[], object], device: torch.device) -> tuple[int, int]:
    """Return the most bytes that a step allocates, and those that its result keeps.

    On a CPU they are those of the allocations that the profiler records.
    """
    with record_allocations(device) as found:
        result = step()
    del result
    return found.peak, found.kept


def command(*arguments: str) -> dict[str, str]:
    """Run one of our commands in this process, and return the results that it prints, the folder of its run too."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = lightning_xt(list(arguments))
    if code:
        sys.exit(f"the command line failed: {' '.join(arguments)}\n{printed.getvalue()}")
    return dict(line.split("=", 1) for line in printed.getvalue().splitlines() if line.startswith(("run=", "val/")))


def say(line: str) -> None:
    """Report progress."""
    print(line, file=sys.stderr, flush=True)


def report(rows: dict[str, dict[str, Any]], device: str, packages: Sequence[str] = ("x-transformers",)) -> None:
    """Print the result.

    Args:
        rows: by name.
        device: type of the device that was measured.
        packages: packages whose versions matter too.
    """
    model = torch.cuda.get_device_name() if device == "cuda" and torch.cuda.is_available() else name_cpu()
    versions = {"lightning-xt": version("lightning-xt"), "torch": torch.__version__}
    versions |= {name: version(name) for name in packages if find_spec(name.replace("-", "_"))}
    machine = f"{model}, {torch.get_num_threads()} threads"
    date = datetime.date.today().isoformat()
    print(json.dumps({"machine": machine, "date": date, "versions": versions, "rows": rows}))
