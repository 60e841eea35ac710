"""The batches of the steps that stopped a run, again."""

import json
from collections.abc import Iterator
from copy import copy
from itertools import islice
from pathlib import Path
from typing import Any

from lightning_xt.core.batch import PairBatch
from lightning_xt.data.base import DataModule
from lightning_xt.data.pair_corpus import PairCorpus


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
    # Others number their samples the same for any number of processes.
    processes = found["processes"] if isinstance(data, PairCorpus) else 1
    served = _as_one(data, processes) if isinstance(data, PairCorpus) and processes > 1 else data
    for each in found["steps"]:
        if each["samples"] is None:
            raise ValueError(f"{file} does not tell which samples its batches had: the run read no data module of ours")
        first, last = each["samples"]
        batches = _between(served, first, last)
        count = each["batches"][1] - each["batches"][0]
        if batches is None or (isinstance(data, PairCorpus) and len(batches) != count):
            raise ValueError(
                f"{file}: step {each['step']} took the samples from {first} up to {last}, but batches of these data "
                "begin and end elsewhere; give the options of the run's config.yaml, the size of batches among them"
            )
        if isinstance(data, PairCorpus) and processes > 1:
            batches = [_share(batch, data.pad, rank, processes) for batch in batches for rank in range(processes)]
        yield each["step"], batches


def _as_one(data: PairCorpus, processes: int) -> PairCorpus:
    """The same pairs for one process that has the budget of all of them, which share its batches."""
    whole = copy(data)
    whole.max_tokens *= processes
    # Has the batches cut anew.
    whole.use_tokenizers(data.source_tokenizer, data.target_tokenizer)
    return whole


def _between(data: DataModule, first: int, last: int) -> list[Any] | None:
    """The batches of one process from a sample up to another; None where none ends there."""
    data.load_state_dict({"samples_seen": first, "hash": data.content_hash})
    count = 0
    while (reached := data.samples_after(first, count)) < last:
        count += 1
    return list(islice(data.train_dataloader(), count)) if reached == last else None


def _share(batch: PairBatch, pad: int, rank: int, processes: int) -> PairBatch:
    """What one of several processes had of a batch: every so many-th pair, as wide as these are."""
    src, tgt, real = (each[rank::processes] for each in batch)
    source, target = int(real.any(0).sum()), int((tgt != pad).any(0).sum())
    return PairBatch(src[:, :source], tgt[:, :target], real[:, :source])
