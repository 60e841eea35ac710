"""Runner of ablate that trains nothing: results follow from a formula."""

import os
import random
import re
import signal
import sys
import time
from multiprocessing.connection import Client
from pathlib import Path

from lightning_xt.commands.ablation.child_process import RunError

TIMES = {"slow": 2.0, "fast": 0.5}
GAINS = {"base": 0.0, "slow": -0.2, "fast": 0.1, "same": 0.0, "minor": -0.025}
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])}
"""Environment of a process that imports this file."""
OPTIMIZER = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}}


class Killed(BaseException):
    """Stands for a death of the process."""


class ScriptedRunner:
    """Runner whose metric falls by 0.5 with the logarithm of the steps, has noise of 0.01 and a gain of each overlay.

    Args:
        most: runs after which it raises `Killed`. None = it does not.
        failures: errors of runs and of speeds by their keys and names, each list in the order of the tries.
        costs: replace measured costs.
    """

    def __init__(self, most=None, failures=None, **costs):
        self.most, self.costs = most, costs
        self.failures = {key: list(errors) for key, errors in (failures or {}).items()}
        self.trained, self.measured, self.wanted = [], [], {}

    def measure(self, base, args):
        name = name_variant(args)
        self.measured.append(name)
        if self.failures.get(name):
            raise self.failures[name].pop(0)
        if name == "broken":
            raise RunError("heads (7) do not divide dim (16)", "Traceback")
        return {
            "time_ratio": TIMES.get(name, 1.0),
            "time_ratios": [0.9, 1.1],
            "seconds_per_step": 0.1 * TIMES.get(name, 1.0),
            "parameters": 1000 if name == "base" else 1100,
            "tokens_per_step": 1024.0,
            "bytes_per_step": 1024.0,
            "flops_per_step": 1e9,
            "memory": 5000,
            "data": "abc",
            "optimizer": OPTIMIZER,
        } | self.costs

    def train(self, jobs):
        for run, args, metrics in jobs:
            self.wanted[run.key] = metrics
            if self.most is not None and len(self.trained) == self.most:
                raise Killed
            self.trained.append((run.key, list(args)))
            yield run, self.make_result(run, dict(each.split("=") for each in args if "=" in each))

    def make_result(self, run, options):
        if self.failures.get(run.key):
            return self.failures[run.key].pop(0)
        if run.purpose == "probe":
            return self.make_probe_result(run)
        if run.variant == "late" and run.seed == 1:
            return RunError("val/loss is nan after 4 steps")
        steps = int(options["--trainer.max_steps"])
        noise = random.Random(f"{run.variant} {run.seed}").gauss(0, 0.01)
        rate = float(options.get("--model.optimizer.lr", 0.01))
        # The best learning rate is 0.02.
        value = 3 + GAINS.get(run.variant, 0.0) + noise + 0.5 * (100 / steps - 1) + abs(rate - 0.02)
        return {
            "metrics": {"val/loss": value / 2, "val/bits_per_byte": value},
            "steps": steps,
            "tokens": 1024 * steps,
            "bytes": 1024 * steps,
            "data": "abc",
            "seconds": 1.5,
            "processor_seconds": 2.5,
        }

    def make_probe_result(self, run):
        if run.variant == "late":
            return RunError("no answer")
        accuracy = 0.5 + 0.001 * run.seed - GAINS.get(run.variant, 0.0)
        return {
            "metrics": {"val/exact_match": accuracy, "val/loss": 1.0},
            "steps": 7,
            "data": run.probe,
            "seconds": 1.0,
        }


def die(connection):
    """Stand for a process that the system kills."""
    os.kill(os.getpid(), signal.SIGKILL)


def leave(connection):
    """Stand for a library that ends the process."""
    os._exit(3)


def fail(connection):
    """Stand for a bug."""
    print("before the end")
    raise ZeroDivisionError("of a bug")


def lack_memory(connection):
    """Stand for an allocation that fails, turned into another error."""
    try:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
    except RuntimeError as error:
        raise ValueError("lower the batch") from error


def meet(connection, own, other):
    """Write a file, and wait for that of a run at the same time."""
    Path(own).touch()
    for _ in range(600):
        if Path(other).exists():
            return {"metrics": own}
        time.sleep(0.05)
    raise TimeoutError("alone")


def call(connection, address):
    """Connect to a process, and stay."""
    with Client(address) as line:
        line.send("here")
        time.sleep(600)


def name_variant(args):
    """Return the name of the overlay among options of fit."""
    overlays = re.findall(r"overlays/(.*)\.yaml", "\n".join(map(str, args)))
    return overlays[0] if overlays else "base"


def write_overlays(*names):
    """Write overlays, and return their files."""
    for name in names:
        options = f"{{dim: 16, embeddings: [{name!r}]}}"
        Path(f"{name}.yaml").write_text(f"# The idea {name} <b>.\nmodel: {{init_args: {{decoder: {options}}}}}\n")
    return [f"{name}.yaml" for name in names]
