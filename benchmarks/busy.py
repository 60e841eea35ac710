"""Speed next to a busy process. Usage: python benchmarks/busy.py [--rows NAME ...] [--repeats 5].

    quickstart    training at the sizes of language/quickstart.yaml, in float32
    compiled      training at the size of training.py, in bfloat16 and compiled
    decoding      one prompt of 16 tokens and more of them by the model of generation.py, compiled

`value` is the fraction of the quiet speed that is left while another process, a loop in Python, keeps one core busy:
the median over the repeats of the ratio within each. `as_loaded` is the same for threads that wait as the OpenMP
runtime lets them, without `ThreadWaits`, and `quiet_cost` what `ThreadWaits` costs without the other process. The four
legs of a row take turns in two processes, with and without `ThreadWaits`; the other process is started for its legs.

A repeat in whose quiet legs still other processes use 0.3 cores is `dropped`, and taken again, as often as there are
repeats.

`--pinned` binds the other process to one core; otherwise the system chooses its core, again and again.
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from common import report, say
from torch import nn
from training import SIZES, Size, make_loop

from lightning_xt import Decoder, LanguageModel, generate
from lightning_xt.generation.models.compiled import Compiled
from lightning_xt.generation.models.quantized_weights import convert_weights
from lightning_xt.system.core_use import LEAST, CoreMeter
from lightning_xt.system.thread_waits import SETTINGS, ThreadWaits

QUICKSTART = Size(128, 4, 4, 256, 4)
LOOP = "import os\nparent = os.getppid()\nprint(flush=True)\nwhile os.getppid() == parent: pass"
"""Program that keeps a core busy until the process that has started it ends."""
SETTLED = 1.5
"""Seconds of work before a leg is timed, in which `ThreadWaits` notices that the other process came or went."""
Step = Callable[[], object]


def quickstart(options: argparse.Namespace) -> Step:
    """Return a step of training as the quickstart takes it."""
    attention = {"heads": QUICKSTART.heads, "qk_norm": "RMSNorm", "value_mods": ["ValueResidual"]}
    decoder = {"dim": options.dim or QUICKSTART.dim, "depth": QUICKSTART.depth, "shift": "TokenShift"}
    return make_training(decoder | {"attention": attention}, QUICKSTART, compiled=False)


def compiled(options: argparse.Namespace) -> Step:
    """Return a step of training at the size of training.py."""
    size = SIZES["cpu"]
    decoder = {"dim": options.dim or size.dim, "depth": size.depth, "attention": {"heads": size.heads}}
    return make_training(decoder, size, compiled=not options.eager)


def make_training(decoder: dict[str, Any], size: Size, *, compiled: bool) -> Step:
    """Return a step of forward, backward, clipping and optimizer."""
    model = LanguageModel.from_config({"decoder": decoder})
    network = torch.compile(model.decoder.forward, dynamic=False) if compiled else model.decoder
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=compiled)
    feed = itertools.cycle(torch.randint(0, 256, (8, size.batch_size, size.seq_len + 1)))
    loop = make_loop(lambda batch: model.objective(network, batch).mean, model, optimizer, feed, bf16=compiled)
    return lambda: loop(1)


def decoding(options: argparse.Namespace) -> Step:
    """Return the decoding of a few tokens, with their prefill."""
    decoder = Decoder(256, dim=options.dim or 512, depth=6).eval()
    head: Any = decoder.head
    # An untrained head scores all tokens alike.
    nn.init.normal_(head.to_logits.weight, std=0.05)
    network = convert_weights(decoder, "float32")
    model, prompt = network if options.eager else Compiled(network), torch.randint(0, 256, (1, 16))
    return lambda: generate(model, prompt, 16, temperature=0)


ROWS: dict[str, Callable[[argparse.Namespace], Step]] = {
    each.__name__: each for each in (quickstart, compiled, decoding)
}


def serve(options: argparse.Namespace) -> None:
    """Answer each line of standard input, a number of seconds, by the steps per second in them."""
    torch.manual_seed(0)
    with ThreadWaits() if options.leg == "adapted" else nullcontext():
        step = ROWS[options.rows[0]](options)
        for _ in range(3):
            step()
        print(torch.get_num_threads(), flush=True)
        for line in sys.stdin:
            work(step, SETTLED)
            print(work(step, float(line)), flush=True)


def work(step: Step, seconds: float) -> float:
    """Take steps for some seconds, at least one, and return the steps per second."""
    taken, start = 0, time.perf_counter()
    while not taken or time.perf_counter() - start < seconds:
        step()
        taken += 1
    return taken / (time.perf_counter() - start)


class Leg:
    """Process that takes the steps of a row.

    Args:
        row: its name.
        kind: "adapted" with `ThreadWaits`, "loaded" without.
        given: options of the command line to pass on.
    """

    def __init__(self, row: str, kind: str, given: list[str]) -> None:
        variables = {name: value for name, value in os.environ.items() if name not in SETTINGS}
        command = [sys.executable, __file__, *given, f"--rows={row}", f"--leg={kind}"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables
        )
        self.threads = int(self._read())

    def measure(self, seconds: float) -> float:
        """Return the steps per second."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        return float(self._read())

    def end(self) -> None:
        """End the process."""
        self.process.communicate()

    def _read(self) -> str:
        assert self.process.stdout is not None
        if not (line := self.process.stdout.readline()):
            raise SystemExit("a leg failed")
        return line


@contextmanager
def keep_core_busy(pinned: bool) -> Iterator[None]:
    """Have another process use a core within the block."""
    # In a separate session, like the programs of other users.
    with subprocess.Popen([sys.executable, "-c", LOOP], stdout=subprocess.PIPE, start_new_session=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        if pinned:
            os.sched_setaffinity(other.pid, {max(os.sched_getaffinity(0))})
        try:
            yield
        finally:
            other.kill()


def measure_row(name: str, options: argparse.Namespace, given: list[str]) -> dict[str, Any]:
    """Return the row of one kind of work."""
    say(f"{name}: preparing")
    legs = {kind: Leg(name, kind, given) for kind in ("adapted", "loaded")}
    repeats: list[dict[tuple[str, bool], float]] = []
    dropped = 0
    while len(repeats) < options.repeats:
        repeat, others = measure_repeat(legs, options)
        # The first leg of a repeat has the machine after a busy one.
        legs = dict(reversed(legs.items()))
        found = ", ".join(f"{kind}{' busy' if busy else ''} {each:.2f}" for (kind, busy), each in repeat.items())
        say(f"{name}: repeat {len(repeats) + 1}/{options.repeats}  steps/s: {found}; others use {others:.1f} cores")
        if others < LEAST or dropped == options.repeats:
            repeats.append(repeat)
        else:
            dropped += 1
    speeds = {leg: [repeat[leg] for repeat in repeats] for leg in repeats[0]}
    for leg in legs.values():
        leg.end()
    cost = compare(speeds["adapted", False], speeds["loaded", False])
    return {
        **compare(speeds["adapted", True], speeds["adapted", False]),
        "unit": "fraction of the quiet speed",
        "as_loaded": compare(speeds["loaded", True], speeds["loaded", False]),
        "quiet_cost": {"value": round(1 - cost["value"], 3), "speed_ratio": cost},
        "steps_per_second": {
            f"{kind}_{'busy' if busy else 'quiet'}": round(statistics.median(each), 3)
            for (kind, busy), each in speeds.items()
        },
        "repeats": options.repeats,
        "dropped": dropped,
        "threads": legs["adapted"].threads,
        "pinned": options.pinned,
    }


def measure_repeat(legs: dict[str, Leg], options: argparse.Namespace) -> tuple[dict[tuple[str, bool], float], float]:
    """Return the steps per second of each leg, quiet and busy, and the cores that others used during the quiet legs."""
    found, meter, others = {}, CoreMeter(), 0.0
    for busy in (False, True):
        for kind, leg in legs.items():
            with keep_core_busy(options.pinned) if busy else nullcontext():
                found[kind, busy] = leg.measure(options.seconds)
        if not busy and (use := meter.measure()) is not None:
            others = use.others
    return found, others


def compare(above: list[float], below: list[float]) -> dict[str, Any]:
    """Return the median, the least and the most of the ratios within each repeat."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    return {
        "value": round(statistics.median(ratios), 3),
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
    }


def main() -> None:
    """Print the rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="least time of a leg in a repeat")
    parser.add_argument("--pinned", action="store_true", help="bind the other process to one core")
    parser.add_argument("--eager", action="store_true", help="nothing is compiled")
    parser.add_argument("--dim", type=int, help="width of the models")
    parser.add_argument("--leg", choices=("adapted", "loaded"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.leg:
        serve(options)
        return
    if options.repeats < 1:
        parser.error(f"--repeats is {options.repeats}; it must be at least 1")
    if sys.platform != "linux":
        parser.error("this benchmark needs Linux, the only system on which waits are chosen")
    if os.environ.get("OMP_NUM_THREADS") == "1" or len(os.sched_getaffinity(0)) == 1:
        say("with one thread nothing waits, and the other process takes another core")
    given = [f"--dim={options.dim}"] if options.dim else []
    given += ["--eager"] if options.eager else []
    report({name: measure_row(name, options, given) for name in options.rows}, "cpu", ())


if __name__ == "__main__":
    main()
