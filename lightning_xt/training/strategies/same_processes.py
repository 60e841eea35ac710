"""Connection and comparison of the processes of a run, before their first batch."""

import os
import socket
import time
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer

UNKNOWN = 20.0
"""Seconds in which a cluster may still learn the name of a machine."""


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
        if trainer.world_size > 1:
            _check_address()
        try:
            connect()
        except torch.distributed.DistError as error:
            place = f"{os.environ.get('MASTER_ADDR')}, port {os.environ.get('MASTER_PORT')}"
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"the processes cannot connect at {place} ({reason}); start all of them with a MASTER_ADDR that they "
                "reach and a MASTER_PORT that is free there"
            ) from error
        compare_processes(trainer, values)

    trainer.strategy.setup_environment = setup_environment  # type: ignore[method-assign]


def _check_address() -> None:
    """Raise a ValueError for a machine that is unknown, and stays so for a while; torch would ask for minutes."""
    address, end = os.environ.get("MASTER_ADDR"), time.monotonic() + UNKNOWN
    while address:
        try:
            socket.getaddrinfo(address, None)
            return
        except OSError as error:
            if time.monotonic() > end:
                raise ValueError(
                    f"MASTER_ADDR is {address}, a machine that is unknown here ({error.strerror}); give the name or "
                    "the address of the first one"
                ) from error
        time.sleep(1)
