"""Functions of the processes of an ablation: train a run, or train in turns with another to compare their speeds."""

import math
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from lightning_xt.commands.ablation.child_process import RunError
from lightning_xt.system.imports import guarded_imports

QUIET = {
    "trainer.fast_dev_run": "false",
    "trainer.logger": "false",
    "trainer.enable_checkpointing": "false",
    "trainer.enable_progress_bar": "false",
    "trainer.devices": 1,
    "standard.run_folder": "null",
    "sample_text": "null",
    "figures": "null",
}
"""Options of a run of which only the result is kept."""
ENDLESS = 10**9
"""Steps of a training that ends when nobody asks for more."""
METRICS = ("val/bits_per_byte", "val/loss")
"""Metrics by which runs are compared, the first one that they have."""


def train_run(connection: Connection, args: Sequence[str], wanted: Sequence[str] = METRICS) -> dict[str, Any]:
    """Train a run to its end, and return its result.

    Args:
        connection: not used.
        args: options of `fit`.
        wanted: metrics of which it must have one. The test split is measured if one of them is of it.

    Returns:
        The metrics of the validation after the last step, the steps, what it was trained on, and the time that it took.

    Raises:
        RunError: it ended early, a metric is not finite, or there is none.
    """
    from lightning_xt.commands.ablation.paced_steps import hash_files
    from lightning_xt.commands.trainer.results import collect_metrics
    from lightning_xt.commands.trainer.run_trainer import train
    from lightning_xt.training.callbacks.throughput import Throughput

    options = [f"--{name}={value}" for name, value in {**QUIET, "validate_every": "null"}.items()]
    with guarded_imports():
        line = train("fit", [*args, *options])
        trainer = line.trainer
        metrics = collect_metrics(trainer, "val/")
        counted = next(each for each in trainer.callbacks if isinstance(each, Throughput)).state_dict()
        steps, data = trainer.global_step, trainer.datamodule
        if 0 < trainer.max_steps != steps:
            raise RunError(
                f"it ended after {steps} of its {trainer.max_steps} steps; omit what ends it, such as trainer.max_time"
            )
        if any(name.startswith("test/") for name in wanted):
            trainer.test(line.model, data, verbose=False)
            metrics |= collect_metrics(trainer, "test/")
    if not metrics.keys() & set(wanted):
        known = ", ".join(sorted(metrics)) or "none at all"
        raise RunError(f"it has none of the metrics {' and '.join(wanted)}, by which runs are compared; it has {known}")
    for name, value in metrics.items():
        if not math.isfinite(value) and name.endswith(("loss", "bits_per_byte")):
            raise RunError(f"{name} is {value} after {steps} steps")
    size = data.bytes_per_token()
    return {
        "metrics": metrics,
        "steps": steps,
        "tokens": counted["tokens"],
        "bytes": None if size is None else round(counted["tokens"] * size),
        "data": hash_files(data),
        "seconds": round(counted["seconds"], 3),
        "processor_seconds": round(time.process_time(), 3),
    }


def train_in_turns(connection: Connection, args: Sequence[str]) -> None:
    """Train the steps that another process asks for; see `PacedSteps`."""
    from lightning_xt.commands.ablation.paced_steps import PacedSteps
    from lightning_xt.commands.trainer.run_trainer import train

    fixed = {
        **QUIET,
        "trainer.max_steps": ENDLESS,
        "trainer.limit_val_batches": 0,
        "trainer.log_every_n_steps": ENDLESS,
    }
    with guarded_imports():
        train("fit", [*args, *(f"--{name}={value}" for name, value in fixed.items())], [PacedSteps(connection)])
