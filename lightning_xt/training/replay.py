"""Replay of the batches that stopped a run."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from lightning_xt.data.base import DataModule


def replay(file: str | Path, data: DataModule) -> Iterator[tuple[int, list[Any]]]:
    """Yield each skipped step, counted from 1, with its batches of all processes.

    One process replays a run of any number of processes. If a step took several batches of each process, the first
    batches of all processes come first, in the order of the processes.

    Args:
        file: the `non_finite.json` of a run.
        data: as the run's config has them.

    Raises:
        ValueError: the data differ, or their batches begin and end elsewhere, or the file holds no sample numbers.
    """
    found = json.loads(Path(file).read_text(encoding="utf-8"))
    data.prepare_data()
    data.setup("fit")
    state = {name: value for name, value in (found["data"] or {}).items() if name != "class_path"}
    there = state.get("hash")
    if there != data.content_hash:
        raise ValueError(
            f"{file} is of data with the hash {there}, but these have {data.content_hash}; give those of the run's "
            "config.yaml"
        )
    processes = [data.for_process(rank, found["processes"]) for rank in range(found["processes"])]
    for each in found["steps"]:
        if each["samples"] is None:
            raise ValueError(
                f"{file} does not hold the samples of its batches: the run read a data module of another kind"
            )
        first, last = each["samples"]
        count = each["batches"][1] - each["batches"][0]
        if processes[0].samples_after(first, count) != last:
            raise ValueError(
                f"{file}: step {each['step']} took the samples from {first} up to {last}, but batches of these data "
                "begin and end elsewhere; give the options of the run's config.yaml, the size of batches among them"
            )
        for process in processes:
            process.load_state_dict(state | {"samples_seen": first})
        served = [islice(process.train_dataloader(), count) for process in processes]
        yield each["step"], [batch for batches in zip(*served, strict=True) for batch in batches]
