"""Function calls in several processes that train together, with a time limit."""

import os
import pickle
import socket
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

SECONDS = 60
"""Seconds after which processes count as waiting for each other forever."""

QUIET = {
    "max_epochs": -1,
    "accelerator": "cpu",
    "logger": False,
    "log_every_n_steps": 1,
    "num_sanity_val_steps": 0,
    "check_val_every_n_epoch": None,
    "use_distributed_sampler": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
}


def run_in_processes(function: Callable[[], Any], count: int, folder: Path, seconds: float = SECONDS) -> list[Any]:
    """Run a function in `count` forked processes, connected as by a launcher, and return the results."""
    if count == 1:
        return [function()]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(count):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
            child = os.fork()
        if child == 0:
            code = 1
            try:
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
                os.environ |= {"WORLD_SIZE": str(count), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
                found = function()
                (folder / f"rank{rank}").write_bytes(pickle.dumps(found))
                torch.distributed.barrier()
                torch.distributed.destroy_process_group()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    codes = _wait_for(children, seconds)
    assert codes == [0] * count, f"exit codes {codes}"
    return [pickle.loads((folder / f"rank{rank}").read_bytes()) for rank in range(count)]


def _wait_for(children: list[int], seconds: float) -> list[int | None]:
    """Wait for the exit codes of the children. None for a killed child: all are killed when one fails."""
    codes: dict[int, int | None] = {}
    end = time.monotonic() + seconds
    while len(codes) < len(children):
        late = time.monotonic() > end or any(codes.values())
        for child in children:
            if child in codes:
                continue
            if late:
                os.kill(child, 9)
            done, status = os.waitpid(child, 0 if late else os.WNOHANG)
            if done:
                codes[child] = None if late else os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return [codes[child] for child in children]


class Logged(Callback):
    """Callback that records the values that every step logs."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.steps.append({name: float(value) for name, value in trainer.callback_metrics.items()})
