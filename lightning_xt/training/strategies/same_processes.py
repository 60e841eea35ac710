"""Comparison of the processes of a run, before their first batch."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer


def compare_processes(trainer: Trainer, values: Mapping[str, Any]) -> None:
    """Raise a ValueError, in every process, if the values of one differ from those of the first."""
    if trainer.world_size == 1:
        return
    found: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(found, {name: str(value) for name, value in values.items()})
    first = found[0]
    for number, other in enumerate(found):
        for name in sorted(first.keys() | other.keys()):
            here, there = (each.get(name, "missing") for each in (first, other))
            if here != there:
                raise ValueError(
                    f"the processes of the run differ: {name} is {here} in process 0 and {there} in process {number}; "
                    "start all of them with one command and the same files"
                )


def compare_when_connected(trainer: Trainer, values: Mapping[str, Any]) -> None:
    """Compare these values as soon as a Trainer has connected its processes."""
    connect = trainer.strategy.setup_environment

    def setup_environment() -> None:
        connect()
        compare_processes(trainer, values)

    trainer.strategy.setup_environment = setup_environment  # type: ignore[method-assign]
