"""Batches of a user's function: drawn with isolated random states, checked, and drawn again."""

import random
import re
import sys
from functools import partial
from itertools import islice

import numpy as np
import pytest
import torch

from lightning_xt.data.loading.isolated_rng import IsolatedRng
from lightning_xt.data.pairs.generator_pairs import GeneratorPairs


def cycle():
    """Draw from all three generators, as the copy task of the reference library draws from torch."""
    while True:
        src = torch.randint(2, 9, (2, 3))
        src[0, 0], src[1, 0] = 2 + int(np.random.randint(7)), random.randint(2, 8)
        yield src, torch.cat([torch.ones(2, 1).long(), src, src], 1), torch.ones(2, 3).bool()


def build(function=cycle, **options):
    return GeneratorPairs(function, **{"source_vocab_size": 9, "target_vocab_size": 9, **options})


def take(data, count=5):
    return [batch.src.tolist() for batch in islice(data.train_dataloader(), count)]


def make_function(*batch):
    def function():
        while True:
            yield batch

    return function


def test_the_stream_follows_from_the_seed():
    assert take(build()) == take(build())
    assert take(build(seed=1)) != take(build())
    batch = next(iter(build().train_dataloader()))
    assert [each.dtype for each in batch] == [torch.int64, torch.int64, torch.bool]


def test_the_model_draws_as_if_there_were_no_function():
    def draw():
        return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()

    def draw_seeded():
        torch.manual_seed(5)
        np.random.seed(5)
        random.seed(5)

    draw_seeded()
    alone = [draw() for _ in range(4)]
    whole = take(build(), 3)
    draw_seeded()
    stream = iter(build().train_dataloader())
    beside = [draw()]
    for expected in whole:
        assert next(stream).src.tolist() == expected
        beside.append(draw())
    assert beside == alone


def test_the_states_are_given_back_when_the_function_fails():
    own, state = IsolatedRng(3), torch.get_rng_state()
    with pytest.raises(RuntimeError, match="negative"), own.use():
        torch.rand(-torch.randint(1, 5, ()))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_resume_draws_again(caplog):
    whole = take(build(), 8)
    data = build()
    data.load_state_dict({"samples_seen": 3, "hash": None})
    with caplog.at_level("INFO"):
        assert take(data) == whole[3:]
    assert (
        "test_generator_pairs.cycle: the 3 batches that the run has trained on are drawn again and discarded"
        in caplog.text
    )
    assert data.samples_after(3, 5) == 8


def test_splits_have_separate_seeds():
    data = build(validation_batches=2, test_batches=3)
    validation, test = list(data.val_dataloader()), list(data.test_dataloader())
    assert (len(validation), len(test)) == (2, 3)
    assert [batch.index.tolist() for batch in test] == [[0, 1], [2, 3], [4, 5]]
    assert all(batch.references is None for batch in test)
    drawn = [batch.src.tolist() for batch in (*validation, *test)]
    assert all(each not in take(data, 3) for each in drawn) and drawn[:2] != drawn[2:4]
    assert [batch.src.tolist() for batch in build(validation_batches=2).val_dataloader()] == drawn[:2]


def test_splits_may_be_omitted():
    data = build(validation_batches=0, test_batches=0)
    data.setup("fit")
    assert data.val_dataloader() == []
    for stage, split in (("validate", "validation"), ("test", "test")):
        with pytest.raises(ValueError, match=f"has no {split} split; give one with --data.{split}_batches"):
            data.setup(stage)


def test_the_vocabulary():
    assert build(target_vocab_size=12, end=11).vocab == {
        "source": 9,
        "target": 12,
        "pad": 0,
        "start": 1,
        "end": 11,
        "separator": None,
    }
    data = build()
    assert data.source_tokenizer.encode("5 3 8") == [5, 3, 8]
    assert data.vocab["end"] is None and data.content_hash is None


def test_a_function_is_found_by_its_path(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/pairs.py").write_text(
        "import torch\ndef cycle():\n    while True:\n        x = torch.randint(2, 9, (2, 3))\n"
        "        yield x, torch.nn.functional.pad(x, (1, 0), value=1), x > 0\nSIZE = 3\n"
    )
    (tmp_path / "mine/broken.py").write_text("import not_installed_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    data = build("mine.pairs.cycle")
    data.setup("fit")
    assert len(take(data)) == 5
    for path, message in {
        "cycle": "--data.function cycle is not an import path; write module and function, such as --data.function mi",
        "nowhere.pairs.cycle": "--data.function nowhere.pairs.cycle: there is no module nowhere here; start",
        "mine.pears.cycle": "--data.function mine.pears.cycle: there is no module mine.pears here; start",
        "mine.pairs.cicle": "--data.function mine.pairs.cicle: there is no cicle in mine.pairs; name a function",
        "mine.pairs.SIZE": "--data.function mine.pairs.SIZE: SIZE is a int, not a function, in mine.pairs; name a func",
    }.items():
        with pytest.raises(ValueError, match=message):
            build(path).setup("fit")
    with pytest.raises(ModuleNotFoundError, match="not_installed_at_all"):
        build("mine.broken.cycle").setup("fit")
    for name in ("mine", "mine.pairs"):
        sys.modules.pop(name)


SRC, TGT, MASK = torch.full((2, 3), 2), torch.tensor([[1, 2], [1, 2]]), torch.ones(2, 3).bool()


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((SRC, TGT), r"it is a tuple of Tensor, Tensor; yield three tensors, \(src, tgt, src_mask\)"),
        ((SRC, TGT, None), "it is a tuple of Tensor, Tensor, NoneType"),
        ((SRC.float(), TGT, MASK), "src has dtype torch.float32; ids must be integers"),
        ((SRC, TGT.bool(), MASK), "tgt has dtype torch.bool; ids must be integers"),
        ((SRC[0], TGT, MASK), r"src has the shape \(3,\); it must be \(rows, ids\)"),
        ((SRC, TGT[:0], MASK), r"tgt has the shape \(0, 2\); it must be \(rows, ids\), with at least one of each"),
        ((SRC[:1], TGT, MASK[:1]), "src has 1 rows and tgt 2; each source needs its target"),
        ((SRC, TGT[:, :1], MASK), "tgt has one id a row; after the start id"),
        ((SRC, TGT, MASK.long()), "src_mask has dtype torch.int64; it must be boolean, False at padding"),
        ((SRC, TGT, MASK[:, :2]), r"src_mask has the shape \(2, 2\), but src \(2, 3\); they must be equal"),
        (
            (SRC, TGT, torch.tensor([[True] * 3, [False] * 3])),
            "source 1 is all padding; src_mask must be True for at least",
        ),
        ((SRC + 7, TGT, MASK), "src holds the id 9; with --data.source_vocab_size 9 ids are from 0 to 8"),
        ((SRC, TGT - 2, MASK), "tgt holds the id -1; with --data.target_vocab_size 9 ids are from 0 to 8"),
        ((SRC, TGT.flip(0, 1), MASK), "target 0 begins with the id 2; it must begin with the start id, --data.start 1"),
    ],
)
def test_batches_are_checked(batch, message):
    with pytest.raises(
        ValueError, match=rf"--data.function \S*make_function\S*: batch 0 of the train split: {message}"
    ):
        build(make_function(*batch)).setup("fit")
    with pytest.raises(ValueError, match=f"batch 0 of the test split: {message}"):
        build(make_function(*batch)).setup("test")


def test_a_wrong_batch_is_named():
    def turn():
        for _ in range(4):
            yield SRC, TGT, MASK
        yield SRC, TGT, MASK.int()

    batches = iter(build(turn).train_dataloader())
    assert len([next(batches) for _ in range(4)]) == 4
    with pytest.raises(ValueError, match=r"turn: batch 4 of the train split: src_mask has dtype torch\.int32"):
        next(batches)


def test_a_function_that_is_not_a_generator():
    with pytest.raises(ValueError, match="returns a int; it must yield batches"):
        build(lambda: 3).setup("fit")
    with pytest.raises(ValueError, match=r"batch 0 of the train split: it is a dict; yield three tensors"):
        build(lambda: iter([{}])).setup("fit")
    with pytest.raises(ValueError, match="it is a tuple of nothing"):
        build(lambda: iter([()])).setup("fit")


def test_a_function_that_ends():
    batches = iter(build(lambda: iter([(SRC, TGT, MASK)] * 2)).train_dataloader())
    assert len([next(batches), next(batches)]) == 2
    with pytest.raises(ValueError, match=r"ended after 2 batches of the train split; .* `while True:`"):
        next(batches)
    with pytest.raises(ValueError, match="ended after 2 batches of the test split"):
        build(lambda: iter([(SRC, TGT, MASK)] * 2)).setup("test")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source_vocab_size": 0}, "has --data.source_vocab_size 0, which must be at least 1"),
        ({"validation_batches": -1}, "has --data.validation_batches -1, which must be at least 0"),
        ({"pad": 9}, "--data.pad 9 is not one of the ids 0 to 8; set another --data.pad or a larger vocabulary"),
        ({"end": 9}, "--data.end 9 is not one of the ids 0 to 8"),
        ({"start": 0}, "--data.pad 0, --data.start 0: special ids must be different"),
        ({"seed": 2**64}, "--data.seed must be from 0"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_the_state_of_a_gpu_is_kept_apart_too(kind, monkeypatch):
    gpu = torch.Generator().manual_seed(7)
    monkeypatch.setattr(getattr(torch, kind), "manual_seed", gpu.manual_seed)
    monkeypatch.setattr(getattr(torch, kind), "get_rng_state", gpu.get_state)
    monkeypatch.setattr(getattr(torch, kind), "set_rng_state", gpu.set_state)
    own, drawn = IsolatedRng(3, torch.device(kind)), []
    for _ in range(2):
        with own.use():
            drawn.append(torch.rand((), generator=gpu).item())
    assert torch.rand((), generator=gpu) == torch.rand((), generator=torch.Generator().manual_seed(7))
    expected = torch.Generator().manual_seed(3)
    assert drawn == [torch.rand((), generator=expected).item() for _ in range(2)]


def test_the_function_may_be_any_callable():
    data = GeneratorPairs(partial(batches_of_one, 4), source_vocab_size=9, target_vocab_size=9)
    data.setup("fit")
    assert next(iter(data.train_dataloader())).src.tolist() == [[4]]
    assert "partial" in data.describe()


def test_an_exception_of_the_function_is_reported_with_its_place():
    data = GeneratorPairs(raise_error, source_vocab_size=9, target_vocab_size=9)
    said = (
        r"^--data\.function .*raise_error raised KeyError: 'x' \(.*test_generator_pairs\.py, line \d+\); fix it there$"
    )
    with pytest.raises(ValueError, match=said):
        data.setup("fit")


def raise_error():
    yield {}["x"]


def batches_of_one(symbol):
    while True:
        yield torch.tensor([[symbol]]), torch.tensor([[1, symbol]]), torch.tensor([[True]])


def test_cases_d6_a_pad_id_between_others_is_refused():
    """Rows that use the padding id for a symbol would be learned without it, by a loss that skips it."""
    src = torch.tensor([[3, 4, 5], [3, 0, 5]])
    tgt = torch.cat([torch.ones(2, 1).long(), src, torch.full((2, 1), 2)], dim=1)
    batch = (src, tgt, torch.ones_like(src, dtype=torch.bool))
    said = (
        "batch 0 of the train split: target 1 has the padding id 0 at place 2, before other ids; the loss skips "
        "padding, so no model would learn it; set --data.pad to an id that only fills up, or to null if there is none"
    )
    with pytest.raises(ValueError, match=re.escape(said)):
        next(build(make_function(*batch), end=2).stream("train"))
    for pad in (8, None):
        data = build(make_function(*batch), end=2, pad=pad)
        found = next(data.stream("train"))
        assert found.tgt.tolist() == tgt.tolist() and data.vocab["pad"] == pad
        assert data.target_tokenizer.decode(tgt[1].tolist()) == "3 0 5"
    # Padding on the right, and a row of nothing else.
    right = torch.tensor([[1, 5, 2, 0, 0], [1, 0, 0, 0, 0]])
    assert next(build(make_function(src, right, batch[2]), end=2).stream("train")).tgt.tolist() == right.tolist()
