"""Replay of the steps that stopped a run, in one process."""

import json
from itertools import islice
from pathlib import Path

import pytest
import torch
from tiny_pairs import write_pairs

from lightning_xt.data.pairs.parallel_text import ParallelText
from lightning_xt.data.text.text_files import TextFiles
from lightning_xt.data.tokenizers.special_bytes import SpecialBytes
from lightning_xt.training.replay import replay


def text(batch_size=2):
    return TextFiles("corpus.txt", seq_len=8, batch_size=batch_size)


def pairs(max_tokens=64):
    write_pairs(Path())
    return ParallelText(
        "pairs.en", target_path="pairs.de", tokenizer=SpecialBytes, max_tokens=max_tokens, max_length=60
    )


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("kind", [text, pairs])
def test_one_process_serves_again_what_several_had(kind, processes, folder, monkeypatch):
    """One process reads the batches of two: two steps of two batches each, in the second epoch of the pairs."""
    had = []
    for rank in range(processes):
        served = kind()
        with monkeypatch.context() as process:
            process.setattr(type(served), "rank_and_world", (rank, processes))
            served.setup("fit")
            seen = served.samples_after(0, 40)
            borders = [served.samples_after(seen, count) for count in (0, 2, 4)]
            served.load_state_dict({"samples_seen": seen, "hash": None})
            had.append(list(islice(served.train_dataloader(), 4)))
    steps = [
        {"step": 21 + each, "batches": [40 + 2 * each, 42 + 2 * each], "samples": borders[each : each + 2]}
        for each in range(2)
    ]
    found = {"processes": processes, "data": {"hash": served.content_hash}, "steps": steps}
    Path("non_finite.json").write_text(json.dumps(found))
    again = [batch for _, batches in replay("non_finite.json", kind()) for batch in batches]
    wanted = [had[rank][batch] for batch in range(4) for rank in range(processes)]
    for one, other in zip(again, wanted, strict=True):
        one, other = ((each,) if isinstance(each, torch.Tensor) else each for each in (one, other))
        assert all(torch.equal(*tensors) for tensors in zip(one, other, strict=True))


@pytest.mark.parametrize(("kind", "other"), [(text, lambda: text(3)), (pairs, lambda: pairs(96))])
def test_batches_of_another_size_are_not_served_again(kind, other, folder):
    served = kind()
    served.setup("fit")
    samples = [served.samples_after(0, 1), served.samples_after(0, 6)]
    found = {"processes": 1, "data": {"hash": served.content_hash}}
    Path("non_finite.json").write_text(
        json.dumps(found | {"steps": [{"step": 2, "batches": [1, 6], "samples": samples}]})
    )
    with pytest.raises(
        ValueError, match=r"step 2 took the samples from \d+ up to \d+, but batches of these data begin"
    ):
        next(replay("non_finite.json", other()))
