"""Scaling by size and bytes, by length, and by processes. Usage: python benchmarks/scaling.py [--rows NAME ...].

    fit            trains a grid of sizes and budgets of bytes, fits L(N, D) = E + A / N^alpha + B / D^beta and plain
                   power laws to the losses, with intervals from resamples of the grid, and compares the prediction for
                   one larger run, which no fit sees, with the loss that it reaches
    length         cost of a token by the length of the row, see scaling_lengths.py
    processes      speed of several processes that train together, see scaling_processes.py
    communication  bytes that GPUs send in a step, by counting on paper, see scaling_communication.py

The grid. A size is a width: `modern_small` with a head and a layer for each 32 of it, at least two layers, trained in
float32 on windows of 256 bytes, 4 a step, by `lightning-xt fit`; what follows `--` goes to every such command. N is the
number of parameters without the table of embeddings, whose rows are looked up; the head counts. D is the number of
bytes trained on: each once (`data.order: shuffled`), so that a budget is at most an epoch. L is the loss in nats a byte
of the whole validation split after the last step; several seeds give their mean. A cell is a training by itself, whose
schedule ends with it, never a point on the way of a longer one, whose rate would not have fallen yet.

Learning rates by one rule, not tuned by cell: --rate for the matrices of every width, because an orthogonalized step
times the root of rows / columns changes features equally at every width; 0.15 of it for embeddings and norms; and 0.15
of it times 64 / width for the head, whose step by AdamW grows with the width. They are the same for every budget.

Every finished cell is kept in --results, and the command, given again, continues after the last of them. The grid and
the larger run take some 40 minutes on two free cores, a third of it the larger run.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import scaling_communication
import scaling_lengths
import scaling_processes
from architectures import train
from common import report, say
from scaling_laws import LEAST, Point, describe_interval, summarize

from lightning_xt.data.text.standard_library import StandardLibrary
from lightning_xt.data.text.text_corpus import TextCorpus
from lightning_xt.data.text.text_files import TextFiles
from lightning_xt.system.files import replace_file

ARCHITECTURE = "modern_small"
UNIT = 32
"""Width of a head, and width for each layer."""
LEAST_DEPTH = 2
"""Layers that a residual of values needs."""
SEQ_LEN, BATCH_SIZE, VOCABULARY = 256, 4, 256
HEAD_WIDTH = 64
"""Width at which the head has the learning rate of the embeddings."""
ROWS = ("fit", "length", "processes", "communication")


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="these groups (default: all)")
    parser.add_argument("--repeats", type=int, default=3, help="of length and processes, all legs in turn")
    grid = parser.add_argument_group("fit")
    grid.add_argument("--sizes", nargs="+", type=int, default=[32, 64, 96, 128, 160], help="widths of the grid")
    grid.add_argument("--budgets", nargs="+", type=int, default=[500_000, 1_000_000, 2_000_000], help="bytes")
    grid.add_argument("--seeds", type=int, default=1, help="runs of each cell")
    held_out = "width and bytes of the larger run that the fit predicts"
    grid.add_argument(
        "--held_out", nargs=2, type=int, default=[192, 3_000_000], metavar=("SIZE", "BUDGET"), help=held_out
    )
    grid.add_argument("--rate", type=float, default=0.04, help="learning rate of matrices")
    grid.add_argument("--text", help="a file, folder or pattern, as --data.path (default: Python's standard library)")
    grid.add_argument("--results", type=Path, default=Path("runs/scaling.json"), help="file of the finished cells")
    grid.add_argument("--resamples", type=int, default=1000, help="of the grid, for the intervals")
    scaling_lengths.add_options(parser)
    scaling_processes.add_options(parser)
    scaling_communication.add_options(parser)
    parser.add_argument("options", nargs="*", help="for the command line of every cell, after --")
    return parser.parse_args()


def main() -> None:
    """Print the rows as JSON."""
    options = parse()
    measure = {
        "fit": fit,
        "length": scaling_lengths.measure,
        "processes": scaling_processes.measure,
        "communication": scaling_communication.count,
    }
    try:
        check(options)
    except ValueError as error:
        # A sentence about the user's mistake.
        say(str(error))
        raise SystemExit(2) from error
    rows: dict[str, dict[str, Any]] = {}
    for name in options.rows:
        rows |= measure[name](options)
    report(rows, "cpu", ("lightning",))


def check(options: argparse.Namespace) -> None:
    """Raise a ValueError for options that cannot be measured, before anything is."""
    if options.repeats < 1:
        raise ValueError(f"--repeats is {options.repeats}; it must be at least 1")
    if "fit" in options.rows:
        check_fit(options)
    if "length" in options.rows:
        scaling_lengths.check(options)
    if "processes" in options.rows:
        scaling_processes.check(options)
    if "communication" in options.rows:
        scaling_communication.check(options)


def check_fit(options: argparse.Namespace) -> None:
    """Raise a ValueError for a grid that cannot be trained or fitted."""
    step = SEQ_LEN * BATCH_SIZE
    for name, what, unit in (("sizes", "widths", 1), ("budgets", f"multiples of the {step} bytes of a step", step)):
        given = sorted({each // unit * unit for each in getattr(options, name)})
        if len(given) < LEAST:
            raise ValueError(
                f"--{name} has {len(given)} different {what} ({' '.join(map(str, given))}), but a law needs at least "
                f"{LEAST}; add some"
            )
    for name, least in (("seeds", 1), ("resamples", 1)):
        if getattr(options, name) < least:
            raise ValueError(f"--{name} is {getattr(options, name)}; it must be at least {least}")
    if not 0 < options.rate < math.inf:
        raise ValueError(f"--rate is {options.rate:g}; it must be a number above 0")
    size, budget = options.held_out
    for width in (*options.sizes, size):
        if width < UNIT or width % UNIT:
            raise ValueError(
                f"the width {width} of --sizes or --held_out must be a multiple of {UNIT}, the width of a head"
            )
    if least := [each for each in (*options.budgets, budget) if each < step]:
        raise ValueError(
            f"the budget {least[0]} of --budgets or --held_out is less than the {step} bytes of one step; give "
            "more bytes"
        )
    last = max(options.sizes), max(options.budgets)
    if size < last[0] or budget < last[1] or (size, budget) == last:
        raise ValueError(
            f"--held_out is {size} {budget}, but must be larger than the grid, which ends at {last[0]} {last[1]}; "
            "raise one or both"
        )
    Results(options.results)
    most = (len(open_corpus(options).splits.train) // SEQ_LEN - 1) * SEQ_LEN
    if (largest := max(*options.budgets, budget)) > most:
        raise ValueError(
            f"the budget {largest} of --budgets or --held_out is more than the {most} bytes of an epoch, and the law "
            "is about text that is seen once; give fewer bytes, or more text with --text"
        )


def open_corpus(options: argparse.Namespace) -> TextCorpus:
    """Return the text of the grid; ValueError if there is none."""
    try:
        corpus = TextFiles(path=options.text) if options.text else StandardLibrary()
        _ = corpus.splits
    except (ValueError, OSError) as error:
        raise ValueError(str(error).replace("--data.path", "--text")) from error
    return corpus


class Results:
    """Finished cells in a JSON file, which is replaced after each of them.

    Args:
        file: path. A missing file is begun.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.cells: dict[str, dict[str, Any]] = {}
        if not file.exists():
            return
        try:
            self.cells = dict(json.loads(file.read_text(encoding="utf-8"))["cells"])
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise ValueError(f"--results {file} is not a file of finished cells; name another, or remove it") from error

    def add(self, key: str, cell: dict[str, Any]) -> None:
        """Keep a cell."""
        self.cells[key] = cell
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(self.file) as opened:
            opened.write(json.dumps({"cells": self.cells}, indent=1).encode())


def fit(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Train the grid and the larger run, and return the rows of the laws."""
    results, text = Results(options.results), open_corpus(options).content_hash[:16]
    grid = [(size, budget) for budget in sorted(set(options.budgets)) for size in sorted(set(options.sizes))]
    cells = [train_cell(size, budget, text, results, options) for size, budget in grid]
    points = [Point(cell["parameters"], cell["bytes"], cell["loss"]) for cell in cells]
    law, laws, rows = summarize(points, options.resamples, 0)
    larger = train_cell(*options.held_out, text, results, options)
    at = larger["parameters"], larger["bytes"]
    predicted = law.predict(*at)
    say(f"held out: {predicted:.4f} nats predicted, {larger['loss']:.4f} measured")
    rows["held_out"] = {
        "value": round(larger["loss"] / predicted - 1, 5),
        "unit": "measured over predicted loss, less 1",
        "predicted": round(predicted, 4),
        "interval": describe_interval([each.predict(*at) for each in laws]),
        "measured": larger["loss"],
        **{name: larger[name] for name in ("size", "parameters", "bytes", "seeds")},
    }
    rows["grid"] = {"unit": "nats a byte", "rate": options.rate, "text": text, "cells": [*cells, larger]}
    return rows


def train_cell(size: int, budget: int, text: str, results: Results, options: argparse.Namespace) -> dict[str, Any]:
    """Return the mean of the seeds of a cell; each is trained unless it is among the results."""
    runs = [train_run(size, budget, seed, text, results, options) for seed in range(options.seeds)]
    losses = [run["loss"] for run in runs]
    return {
        **{name: runs[0][name] for name in ("size", "parameters", "all_parameters", "bytes")},
        "loss": round(statistics.mean(losses), 5),
        "each": losses,
        "seeds": len(losses),
        "seconds": round(sum(run["seconds"] for run in runs), 1),
    }


def train_run(
    size: int, budget: int, seed: int, text: str, results: Results, options: argparse.Namespace
) -> dict[str, Any]:
    """Return one run."""
    arguments = [*choose_options(size, options.rate, options.text), *options.options]
    key = f"text {text}, seed {seed}, {budget} bytes: {' '.join(arguments)}"
    if key in results.cells:
        return results.cells[key]
    started = time.perf_counter()
    # Nothing but the result is kept.
    with tempfile.TemporaryDirectory() as folder:
        made = train(ARCHITECTURE, arguments, seed, budget, Path(folder))
    run = {
        "size": size,
        "parameters": made["parameters"] - VOCABULARY * size,
        "all_parameters": made["parameters"],
        "bytes": made["bytes_seen"],
        "loss": round(made["bits_per_byte"] * math.log(2), 5),
        "seconds": round(time.perf_counter() - started, 1),
    }
    if not math.isfinite(run["loss"]):
        sys.exit(f"width {size}, {budget} bytes, seed {seed}: the loss is {run['loss']}; give a lower --rate")
    results.add(key, run)
    say(f"width {size}, {budget} bytes, seed {seed}: {run['loss']:.4f} nats, {run['seconds']:.0f} s")
    return run


def choose_options(size: int, rate: float, text: str | None) -> list[str]:
    """Return the options of a cell by the rules of this benchmark."""
    data = [] if text is None else ["--data=TextFiles", f"--data.path={text}"]
    sizes = [f"--data.seq_len={SEQ_LEN}", f"--data.batch_size={BATCH_SIZE}", "--data.order=shuffled"]
    sizes += [
        f"--model.decoder.dim={size}",
        f"--model.decoder.depth={max(LEAST_DEPTH, size // UNIT)}",
        f"--model.decoder.attention.heads={size // UNIT}",
    ]
    other = 0.15 * rate
    rates = {"lr": rate, "adamw_lr": other, "head_lr": other * HEAD_WIDTH / size}
    return [*data, *sizes, *(f"--model.optimizer.{name}={value:.6g}" for name, value in rates.items())]


if __name__ == "__main__":
    main()
