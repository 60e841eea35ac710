"""The batches of the steps that stopped a run, again."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from lightning_xt.data.base import DataModule


def replay(file: str | Path, data: DataModule) -> Iterator[tuple[int, list[Any]]]:
    """Each step that was left out, counted from 1, with the batches that all processes made it of.

    It takes one process, however many the run had. Where a step took several batches of each process, first come the
    first ones of all processes, in their order.

    Args:
        file: the `non_finite.json` of a run.
        data: as the run's config has them.

    Raises:
        ValueError: the data are others, or their batches begin and end elsewhere, or the file tells no samples.
    """
    found = json.loads(Path(file).read_text(encoding="utf-8"))
    data.prepare_data()
    data.setup("fit")
    there = (found["data"] or {}).get("hash")
    if there != data.content_hash:
        raise ValueError(
            f"{file} is of data with the hash {there}, but these have {data.content_hash}; give those of the run's "
            "config.yaml"
        )
    processes = [data.for_process(rank, found["processes"]) for rank in range(found["processes"])]
    for each in found["steps"]:
        if each["samples"] is None:
            raise ValueError(f"{file} does not tell which samples its batches had: the run read no data module of ours")
        first, last = each["samples"]
        count = each["batches"][1] - each["batches"][0]
        if processes[0].samples_after(first, count) != last:
            raise ValueError(
                f"{file}: step {each['step']} took the samples from {first} up to {last}, but batches of these data "
                "begin and end elsewhere; give the options of the run's config.yaml, the size of batches among them"
            )
        for process in processes:
            process.load_state_dict({"samples_seen": first, "hash": there})
        served = [islice(process.train_dataloader(), count) for process in processes]
        yield each["step"], [batch for batches in zip(*served, strict=True) for batch in batches]
