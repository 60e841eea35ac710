"""Weak scaling: speed of several processes that train together; rows of scaling.py.

    processes_ddp_2, processes_fsdp2_2, ...   a number of processes, each with the batch that one process has

Processes have one thread each and communicate by gloo on this machine. `value` is the efficiency: the time of a step of
one process, which trains alone, over that of a step of all, medians over the repeats of the ratio within each; the legs
take turns, each with fresh processes. Processes beyond the cores share them, so that the efficiency of perfect
processes is `limit`; `of_limit` is the fraction of it that is reached.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from common import say
from lightning.pytorch import Callback, Trainer

from lightning_xt.data.text.text_files import TextFiles
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.strategies.fsdp2 import FSDP2

STRATEGIES = ("ddp", "fsdp2")
SEQ_LEN, BATCH_SIZE, CORPUS = 256, 4, 1_000_000
FIRST = 3
"""Steps of preparation, which are not measured."""
SECONDS = 600
"""Time limit of the processes of a leg."""
QUIET: dict[str, Any] = {
    "max_epochs": -1,
    "accelerator": "cpu",
    "logger": False,
    "limit_val_batches": 0,
    "num_sanity_val_steps": 0,
    "use_distributed_sampler": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of these rows."""
    group = parser.add_argument_group("processes")
    group.add_argument(
        "--processes", nargs="+", type=int, default=[2, 4], help="that train together, besides one alone"
    )
    group.add_argument("--steps", type=int, default=20, help=f"of each leg, besides the first {FIRST}")


def check(options: argparse.Namespace) -> None:
    """Raise a ValueError for options that cannot be measured."""
    if min(options.processes) < 2:
        raise ValueError(
            f"--processes has {min(options.processes)}, but must be at least 2; one process alone is measured anyway"
        )
    if options.steps < 1:
        raise ValueError(f"--steps is {options.steps}; it must be at least 1")


def measure(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return the row of each strategy and number of processes."""
    counts = sorted(set(options.processes))
    legs = [("one", 1), *((strategy, count) for count in counts for strategy in STRATEGIES)]
    seconds: dict[tuple[str, int], list[float]] = {leg: [] for leg in legs}
    with tempfile.TemporaryDirectory() as name:
        corpus = Path(name, "corpus.txt")
        values = torch.randint(0, 256, (CORPUS,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        corpus.write_bytes(values.numpy().tobytes())
        for repeat in range(options.repeats):
            for strategy, count in legs:
                found = launch(strategy, count, corpus, options)
                seconds[strategy, count].append(found)
                said = f"{strategy}, {count} processes: {1000 * found:.1f} ms a step"
                say(f"repeat {repeat + 1}/{options.repeats}  {said}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    alone = seconds["one", 1]
    return {
        f"processes_{strategy}_{count}": describe(seconds[strategy, count], alone, count, cores, options)
        for strategy, count in legs[1:]
    }


def describe(
    seconds: list[float], alone: list[float], count: int, cores: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Return the row of a leg."""
    ratios = [one / each for one, each in zip(alone, seconds, strict=True)]
    value, limit = statistics.median(ratios), min(1.0, cores / count)
    return {
        "value": round(value, 3),
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        "unit": "time of a step of one process over that of a step of all, each with the same batch",
        "limit": round(limit, 3),
        "of_limit": round(value / limit, 3),
        "step_ms": round(1000 * statistics.median(seconds), 2),
        "one_ms": round(1000 * statistics.median(alone), 2),
        "processes": count,
        "cores": cores,
        **{name: getattr(options, name) for name in ("dim", "depth", "heads", "steps")},
        "repeats": len(ratios),
    }


def launch(strategy: str, count: int, corpus: Path, options: argparse.Namespace) -> float:
    """Train in fresh processes, and return the median seconds of a step."""
    sizes = {"dim": options.dim, "depth": options.depth, "attention": {"heads": options.heads}}
    task = {"strategy": strategy, "processes": count, "steps": options.steps, "decoder": sizes, "corpus": str(corpus)}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if count > 1:
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        environment |= {"WORLD_SIZE": str(count), "NODE_RANK": "0"}
    children, outputs = [], [Path(f"{corpus}.{rank}") for rank in range(count)]
    for rank, output in enumerate(outputs):
        own = environment | ({"LOCAL_RANK": str(rank)} if count > 1 else {})
        with output.open("wb") as opened:
            command = [sys.executable, __file__, json.dumps(task)]
            children.append(subprocess.Popen(command, env=own, stdout=opened, stderr=subprocess.STDOUT))
    wait_for(children)
    texts = [output.read_text() for output in outputs]
    # A process that failed by itself has a positive code, those that were ended with it a negative one.
    failed = [(child.returncode, text) for child, text in zip(children, texts, strict=True) if child.returncode]
    if failed:
        code, text = max(failed)
        sys.exit(f"a process of {strategy} with {count} ended with {code}: {text}")
    return float(json.loads(texts[0].splitlines()[-1])["seconds"])


def wait_for(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait until all end; one that fails, or the time limit, ends the others."""
    end = time.monotonic() + SECONDS
    while any(child.poll() is None for child in children):
        if time.monotonic() > end or any(child.poll() for child in children):
            for child in children:
                child.kill()
                child.wait()
        time.sleep(0.05)


class StepClock(Callback):
    """Callback that records the end of each step."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.ends.append(time.perf_counter())

    def seconds(self) -> float:
        """Return the median seconds of a step after the first ones."""
        return statistics.median(b - a for a, b in zip(self.ends[FIRST - 1 :], self.ends[FIRST:], strict=False))


def train(
    strategy: str,
    processes: int,
    steps: int,
    corpus: str,
    model: dict[str, Any],
    callbacks: Sequence[Callback],
    batch_size: int = BATCH_SIZE,
    seq_len: int = SEQ_LEN,
) -> LanguageModel:
    """Train in this process as one of several, which the environment names, and return the model."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    trained = LanguageModel.from_config(model)
    data = TextFiles(corpus, seq_len=seq_len, batch_size=batch_size, validation=0, test=0)
    chosen: Any = FSDP2() if strategy == "fsdp2" else {"one": "auto"}.get(strategy, strategy)
    trainer = Trainer(max_steps=steps, strategy=chosen, devices=processes, callbacks=list(callbacks), **QUIET)
    trainer.fit(trained, data)
    return trained


def main() -> None:
    """Train as a task says, and print the seconds of a step."""
    task, clock = json.loads(sys.argv[1]), StepClock()
    model = {"decoder": task["decoder"]}
    train(task["strategy"], task["processes"], FIRST + task["steps"], task["corpus"], model, [clock])
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    print(json.dumps({"seconds": clock.seconds()}))


if __name__ == "__main__":
    main()
