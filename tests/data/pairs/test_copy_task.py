"""The copy task: solutions, splits, and the stream."""

from itertools import islice, product

import numpy as np
import pytest
import torch

from lightning_xt.data.pairs.copy_task import CopyTask, solve
from lightning_xt.data.pairs.symbol_sequences import SPLITS, Symbols, SymbolSequences, assign_splits


def take(data, count):
    return list(islice(data.train_dataloader(), count))


def sources(data, split):
    """Return the sources of a split, in the order of their numbers."""
    batches = data.test_dataloader() if split == "test" else data.val_dataloader()
    found = {}
    for batch in batches:
        for number, ids, mask in zip(batch.index.tolist(), batch.src, batch.src_mask, strict=True):
            found[number] = tuple(ids[mask].tolist())
    assert sorted(found) == list(range(len(found)))
    return [found[number] for number in range(len(found))]


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("copy", [[4, 2, 3], [5, 0, 0]]),
        ("copy_twice", [[4, 2, 3, 4, 2, 3], [5, 5, 0, 0, 0, 0]]),
        ("reverse", [[3, 2, 4], [5, 0, 0]]),
        ("sort", [[2, 3, 4], [5, 0, 0]]),
    ],
)
def test_answers(task, expected):
    answer = solve(Symbols(np.asarray([[4, 2, 3], [5, 0, 0]]), np.asarray([3, 1])), task)
    assert answer.ids.tolist() == expected
    assert answer.lengths.tolist() == [6, 2] if task == "copy_twice" else [3, 1]


def test_a_batch_of_the_reference_task():
    data = CopyTask(batch_size=5)
    (batch,) = take(data, 1)
    assert data.vocab == {"source": 19, "target": 19, "pad": 0, "start": 1, "end": 18, "separator": None}
    assert batch.src.shape == (5, 33) and batch.tgt.shape == (5, 66) and batch.src_mask.all()
    symbols = batch.src[:, :32]
    assert symbols.min() >= 2 and symbols.max() <= 17 and (batch.src[:, 32] == 18).all()
    assert torch.equal(batch.tgt[:, 1:65], torch.cat([symbols, symbols], dim=1))
    assert (batch.tgt[:, 0] == 1).all() and (batch.tgt[:, 65] == 18).all()
    assert batch.src.dtype == batch.tgt.dtype == torch.int64 and batch.src_mask.dtype == torch.bool


def test_shorter_sequences_are_padded():
    data = CopyTask("reverse", num_symbols=5, min_length=1, max_length=6, batch_size=50)
    (batch,) = take(data, 1)
    lengths = batch.src_mask.sum(1)
    assert set(lengths.tolist()) == set(range(2, 8))
    for src, tgt, mask, length in zip(*batch, lengths.tolist(), strict=True):
        assert mask.tolist() == [True] * length + [False] * (7 - length)
        assert src[length - 1] == 7 and (src[length:] == 0).all()
        assert tgt.tolist() == [1, *src[: length - 1].flip(0).tolist(), 7] + [0] * (7 - length)
    narrow = CopyTask(min_length=1, max_length=1000, batch_size=2)
    widths = [batch.src_mask.sum(1).max() == batch.src.shape[1] for batch in take(narrow, 5)]
    assert all(widths)


def test_lengths_and_symbols_are_equally_likely():
    data = CopyTask(num_symbols=3, min_length=5, max_length=8, batch_size=8000)
    (batch,) = take(data, 1)
    counts = torch.bincount(batch.src_mask.sum(1))[6:].double()
    assert len(counts) == 4 and (counts / 8000 - 0.25).abs().max() < 0.03
    symbols = torch.bincount(batch.src.flatten())[2:5].double()
    assert (symbols / symbols.sum() - 1 / 3).abs().max() < 0.02


def test_ten_thousand_test_pairs_are_different():
    found = sources(CopyTask(eval_batch_size=1000), "test")
    assert len(found) == len(set(found)) == 10_000


@pytest.mark.parametrize("options", [{"min_length": 1, "max_length": 3, "num_symbols": 4}, {"min_length": 6}])
def test_no_sequence_is_in_two_splits(options):
    data = CopyTask(**options, validation_size=300, test_size=300, batch_size=3000)
    test, validation = set(sources(data, "test")), set(sources(data, "validation"))
    other = CopyTask(**options, batch_size=3000, seed=1)
    train = {
        tuple(ids[mask].tolist())
        for batch in (*take(data, 1), *take(other, 1))
        for ids, mask in zip(batch.src, batch.src_mask, strict=True)
    }
    assert test and validation and train
    assert not test & validation and not test & train and not validation & train
    if "max_length" in options:
        # Few enough that each occurs in a split.
        every = [c for length in (1, 2, 3) for c in product(range(2, 6), repeat=length)]
        assert test | validation | train == {(*each, 6) for each in every}


def test_the_split_does_not_depend_on_the_padding():
    ids = np.random.default_rng(0).integers(2, 9, (500, 4))
    lengths = np.full(500, 4)
    splits = assign_splits(Symbols(ids, lengths))
    assert np.array_equal(assign_splits(Symbols(np.pad(ids, ((0, 0), (0, 3))), lengths)), splits)
    shares = np.bincount(splits) / 500
    assert abs(shares[0] - 0.1) < 0.04 and abs(shares[1] - 0.1) < 0.04


def test_a_sequence_is_a_function_of_seed_and_number():
    drawn = SymbolSequences("train", 7, (2, 9), seed=4)
    whole = drawn.draw(np.arange(50))
    alone = [drawn.draw(np.asarray([number])) for number in range(50)]
    assert [one.lengths[0] for one in alone] == whole.lengths.tolist()
    assert all(np.array_equal(one.ids[0], row[: one.lengths[0]]) for one, row in zip(alone, whole.ids, strict=True))
    assert not np.array_equal(SymbolSequences("train", 7, (2, 9), seed=5).draw(np.arange(50)).lengths, whole.lengths)


def test_batches_follow_from_the_position():
    whole = torch.cat([batch.src for batch in take(CopyTask(batch_size=4), 6)])
    data = CopyTask(batch_size=6)
    data.load_state_dict({"samples_seen": 6, "hash": data.content_hash})
    assert torch.equal(torch.cat([batch.src for batch in take(data, 3)]), whole[6:])
    assert data.samples_after(6, 3) == 24


def test_longer_sequences_to_test():
    data = CopyTask("copy", min_length=1, max_length=4, test_length=9, test_size=7, validation_size=20)
    assert {len(source) - 1 for source in sources(data, "test")} == {9}
    assert {len(source) - 1 for source in sources(data, "validation")} == {1, 2, 3, 4}
    assert next(iter(data.test_dataloader())).tgt.shape == (7, 11)


def test_evaluation_batches():
    data = CopyTask(validation_size=5, test_size=7, batch_size=2, eval_batch_size=3)
    assert [len(batch.src) for batch in data.test_dataloader()] == [3, 3, 1]
    assert len(CopyTask(test_size=7, batch_size=2).test_dataloader()) == 4
    assert all(batch.references is None for batch in data.val_dataloader())
    none = CopyTask(validation_size=0)
    none.setup("fit")
    assert none.val_dataloader() == []
    with pytest.raises(ValueError, match=r"--data CopyTask has no validation split; .* --data.validation_size"):
        none.setup("validate")


def test_sources_to_predict_are_numbers(tmp_path):
    file = tmp_path / "sources"
    file.write_text("2 3 4\n\n5\n")
    data = CopyTask(predict_source=str(file), eval_batch_size=2)
    data.setup("predict")
    batches = list(data.predict_dataloader())
    assert [[source["id"] for source in batch] for batch in batches] == [[1, 2], [0]]
    assert data.source_tokenizer.encode(batches[1][0]["text"]) == [2, 3, 4]
    assert data.source_tokenizer is data.target_tokenizer


def test_the_hash_is_of_what_is_trained_on():
    assert CopyTask().content_hash == CopyTask(batch_size=3, test_length=9).content_hash
    assert len({CopyTask(**o).content_hash for o in ({}, {"seed": 1}, {"task": "copy"}, {"min_length": 5})}) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_symbols": 0}, "has --data.num_symbols 0, which must be at least 1"),
        ({"min_length": 0}, "has --data.min_length 0, which must be at least 1"),
        ({"min_length": 5, "max_length": 4}, r"--data.max_length must be at least --data.min_length \(5\), not 4"),
        ({"validation_size": -1}, "has --data.validation_size -1, which must be at least 0"),
        ({"test_size": 0}, "has --data.test_size 0, which must be at least 1"),
        ({"test_length": 0}, "has --data.test_length 0, which must be at least 1"),
        ({"batch_size": 0}, "has --data.batch_size 0, which must be at least 1"),
        ({"eval_batch_size": 0}, "has --data.eval_batch_size 0, which must be at least 1"),
        ({"seed": -1}, r"--data.seed must be from 0 to 2\*\*64 - 1, not -1"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        CopyTask(**options)


def test_a_split_that_can_hold_nothing():
    """A single sequence belongs to one split, so the others are empty."""
    full = SPLITS[int(assign_splits(Symbols(np.asarray([[2]]), np.asarray([1])))[0])]
    for split in SPLITS:
        if split == full:
            assert SymbolSequences(split, 1, (1, 1), 0).draw(np.arange(3)).ids.tolist() == [[2]] * 3
            continue
        message = f"--data.num_symbols 1 gives too few sequences of 1 to 1 symbols .* the {split} split"
        with pytest.raises(ValueError, match=message):
            SymbolSequences(split, 1, (1, 1), 0)
    for stage in {"fit", "validate", "test"} - {full}:
        with pytest.raises(ValueError, match="gives too few sequences"):
            CopyTask(num_symbols=1, min_length=1).setup(stage)
    # One symbol, but many lengths.
    SymbolSequences("test", 1, (1, 60), 0).draw(np.arange(100))
