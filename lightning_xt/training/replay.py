"""The batches of the steps that stopped a run, again."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning_xt.data.base import DataModule


def replay(file: str | Path, data: DataModule) -> Iterator[tuple[int, list[Any]]]:
    """Each step that was left out, counted from 1, with the batches of all processes that it was made of.

    Args:
        file: the `non_finite.json` of a run.
        data: as the run's config has them.

    Raises:
        ValueError: the data are others, or the file does not tell their samples.
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
    for each in found["steps"]:
        if each["samples"] is None:
            raise ValueError(f"{file} does not tell which samples its batches had: the run read no data module of ours")
        first, last = each["samples"]
        data.load_state_dict({"samples_seen": first, "hash": there})
        batches: list[Any] = []
        served = iter(data.train_dataloader())
        while data.samples_after(first, len(batches)) < last:
            batches.append(next(served))
        yield each["step"], batches
