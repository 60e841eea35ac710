"""Sentence pairs: tokenizers, long pairs, invalid pairs, and prediction without pairs."""

import random
import re
from functools import partial
from itertools import islice

import pytest
import torch

from lightning_xt.data.pairs.pair_corpus import PairCorpus
from lightning_xt.data.pairs.pair_files import PairLines
from lightning_xt.data.pairs.parallel_text import ParallelText
from lightning_xt.data.tokenizers.bpe import BPE
from lightning_xt.data.tokenizers.bytes import Bytes
from lightning_xt.data.tokenizers.special_bytes import SpecialBytes

PAIRS = [("ab", "xyz"), ("c", "w"), ("defg", "v"), ("h", "uuuuu"), ("ij", "tt")]


def corpus(folder, pairs=PAIRS, held_out=None, **options):
    """Return the pairs to train on, and those to validate and test on."""
    file = folder / "train.tsv"
    file.write_text("".join(f"{source}\t{target}\n" for source, target in pairs))
    paths = {"validation": 0, "test": 0}
    if held_out is not None:
        other = folder / "other.tsv"
        other.write_text("".join(f"{source}\t{target}\n" for source, target in held_out))
        paths = {"validation": str(other), "test": str(other)}
    return ParallelText(str(file), **paths, **{"tokenizer": SpecialBytes, **options})


def epoch(data):
    """Return source and target of each pair of the first epoch, as text, in order."""
    data.setup("fit")
    table = data._training_table()
    found = []
    for batch in islice(data.train_dataloader(), len(data._training_batches().bounds) - 1):
        for src, tgt, mask in zip(*batch, strict=True):
            source, target = src[mask].tolist(), [token for token in tgt.tolist() if token != 0]
            assert source[-1] == target[-1] == 2 and target[0] == 1
            found.append((data.source_tokenizer.decode(source[:-1]), data.target_tokenizer.decode(target[1:-1])))
    assert len(found) == len(table)
    return sorted(found)


def test_an_epoch_holds_every_pair(tmp_path):
    for max_tokens in (8, 16, 4096):
        assert epoch(corpus(tmp_path, max_tokens=max_tokens)) == sorted(PAIRS)


def test_ids(tmp_path):
    data = corpus(tmp_path, PAIRS[:1])
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    a, x = (ord(letter) + 3 for letter in "ax")
    assert batch.src.tolist() == [[a, a + 1, 2]]
    assert batch.tgt.tolist() == [[1, x, x + 1, x + 2, 2]]
    assert batch.src_mask.tolist() == [[True] * 3]
    assert data.vocab == {"source": 259, "target": 259, "pad": 0, "start": 1, "end": 2, "separator": None}


def test_long_pairs_are_skipped_or_cut_and_reported(tmp_path, caplog):
    with caplog.at_level("INFO"):
        assert epoch(corpus(tmp_path, max_length=3)) == [("ab", "xyz"), ("c", "w"), ("ij", "tt")]
    told = "2 of 5 training pairs have more than 3 tokens on a side; they are dropped (--data.too_long drop)"
    assert caplog.text.count(told) == 1
    with caplog.at_level("INFO"):
        cut = epoch(corpus(tmp_path, max_length=3, too_long="truncate"))
    assert cut == [("ab", "xyz"), ("c", "w"), ("def", "v"), ("h", "uuu"), ("ij", "tt")]
    assert "they are cut (--data.too_long truncate)" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO"):
        epoch(corpus(tmp_path, max_length=5))
    assert "have more than" not in caplog.text


def test_without_a_limit_texts_fit_into_a_batch(tmp_path, caplog):
    with caplog.at_level("INFO"):
        assert len(epoch(corpus(tmp_path, [*PAIRS, ("k", "r" * 7), ("k", "r" * 6)], max_tokens=8))) == 6
    assert "1 of 7 training pairs have more than 6 tokens on a side" in caplog.text


@pytest.mark.parametrize("too_long", ["drop", "truncate"])
def test_evaluation_skips_no_pair_and_keeps_the_references(tmp_path, caplog, too_long):
    held_out = [("abcdef", "x"), ("", "yyyyyy"), ("z", "")]
    data = corpus(tmp_path, held_out=held_out, max_length=4, too_long=too_long)
    with caplog.at_level("INFO"):
        data.setup("test")
        (batch,) = data.test_dataloader()
    assert "2 of 3 test pairs have more than 4 tokens on a side; these are cut for the model" in caplog.text
    found = dict(zip(batch.index.tolist(), batch.references, strict=True))
    assert found == {0: "x", 1: "yyyyyy", 2: ""}
    sources = {n: ids[mask].tolist() for n, ids, mask in zip(batch.index.tolist(), batch.src, batch.src_mask)}  # noqa: B905
    assert [data.source_tokenizer.decode(sources[n][:-1]) for n in range(3)] == ["abcd", "", "z"]
    assert sources[1] == [2]
    assert batch.tgt.shape == (3, 6) and batch.tgt[batch.index.tolist().index(2)].tolist() == [1, 2, 0, 0, 0, 0]


def test_tokenizers_learn_from_the_training_split(tmp_path):
    pairs = [("aaaa bbbb", "cccc dddd")] * 9
    held_out = [("eeee " * 9, "ffff " * 9)]
    shared = corpus(tmp_path, pairs, held_out, tokenizer=BPE)
    shared.setup("fit")
    assert shared.source_tokenizer is shared.target_tokenizer
    assert [len(shared.source_tokenizer.encode(word)) for word in ("aaaa", "cccc", "eeee")] == [1, 1, 4]
    each = corpus(tmp_path, pairs, held_out, tokenizer=BPE, shared_tokenizer=False)
    # The size is known before training the tokenizer.
    assert each.vocab["source"] == each.vocab["target"] == 8000
    each.setup("validate")
    each.val_dataloader()
    source, target = each.source_tokenizer, each.target_tokenizer
    assert [len(source.encode(word)) for word in ("aaaa", "cccc", "eeee")] == [1, 4, 4]
    assert [len(target.encode(word)) for word in ("aaaa", "cccc", "ffff")] == [4, 1, 4]
    assert each.vocab["source"] == 8000


def test_a_tokenizer_that_learns_nothing_reads_no_training_pairs(tmp_path):
    data = corpus(tmp_path, held_out=PAIRS)
    (tmp_path / "train.tsv").unlink()
    data.setup("test")
    assert sum(len(batch.src) for batch in data.test_dataloader()) == 5
    assert data.content_hash is None
    with pytest.raises(FileNotFoundError):
        data.setup("fit")


def test_tokenizers_of_a_checkpoint_are_used(tmp_path):
    """Tokenizers of a checkpoint may come before `setup` or after it."""
    other = SpecialBytes()
    for stage in ("fit", "test"):
        data = corpus(tmp_path, held_out=PAIRS, tokenizer=BPE)
        if stage == "test":
            data.setup("fit")
            before = data.content_hash
        data.use_tokenizers(other, other)
        if stage == "fit":
            data.setup("fit")
        (batch,) = data.val_dataloader()
        assert data.source_tokenizer is data.target_tokenizer is other
        assert sorted(batch.src[batch.src_mask].tolist())[-1] == ord("j") + 3
        assert next(iter(data.train_dataloader())).tgt.max() == ord("z") + 3
        assert stage == "fit" or data.content_hash != before


def test_tokenizers_of_a_checkpoint_spare_a_test_the_training_pairs(tmp_path):
    data = corpus(tmp_path, held_out=PAIRS, tokenizer=BPE)
    (tmp_path / "train.tsv").unlink()
    data.setup("test")
    data.use_tokenizers(SpecialBytes(), SpecialBytes())
    assert [batch.index.tolist() for batch in data.test_dataloader()] == [[3, 1, 4, 0, 2]]
    data = corpus(tmp_path, held_out=PAIRS, tokenizer=BPE)
    (tmp_path / "train.tsv").unlink()
    with pytest.raises(FileNotFoundError):
        data.test_dataloader()


def test_the_hash_is_of_pairs_and_tokenizers(tmp_path):
    def build_hash(pairs=PAIRS, **options):
        data = corpus(tmp_path, pairs, **options)
        assert data.content_hash is None
        data.setup("fit")
        return data.content_hash

    assert build_hash() == build_hash(max_tokens=99, seed=4)
    assert len({build_hash(), build_hash(PAIRS[::-1]), build_hash(max_length=3), build_hash(tokenizer=BPE)}) == 4


def test_epochs_are_shuffled_by_the_seed(tmp_path):
    def first(seed):
        data = corpus(tmp_path, [(f"{n:03}", f"{n:03}") for n in range(200)], seed=seed, max_tokens=40)
        data.setup("fit")
        return next(iter(data.train_dataloader())).src

    assert torch.equal(first(0), first(0)) and not torch.equal(first(0), first(1))


def on(world):
    class Trainer:
        distributed_sampler_kwargs = {"rank": 0, "num_replicas": world}

    return Trainer


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 7}, "has --data.max_tokens 7, which must be at least 8"),
        ({"max_length": 0}, "has --data.max_length 0, which must be at least 1"),
        ({"seed": -1}, "--data.seed must be from 0"),
        ({"tokenizer": Bytes}, "--data.tokenizer Bytes has no pad, start and end token; set --data.tokenizer"),
    ],
)
def test_options_are_checked(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        corpus(tmp_path, **options)


def test_no_batches_can_be_made(tmp_path):
    with pytest.raises(
        ValueError,
        match=r"--data.max_tokens 8 has no room for the longest training pair of --data.path \S+, which has 12 tokens; "
        r"set --data.max_tokens 12 or more, or --data.max_length 6 or less",
    ):
        corpus(tmp_path, [("a", "b" * 10)], max_tokens=8, max_length=20).setup("fit")
    with pytest.raises(ValueError, match=r"all 5 training pairs of .* more than 1 tokens on a side, so no pair"):
        corpus(tmp_path, [("ab", "cd")] * 5, max_length=1).setup("fit")
    data = corpus(tmp_path)
    data.trainer = on(6)
    with pytest.raises(ValueError, match=r"has 5 training pairs for 6 processes, .* set --trainer.devices 5 or less"):
        data.setup("fit")
    data.trainer = on(5)
    data.setup("fit")


def test_targets_have_another_tokenizer(tmp_path):
    data = corpus(tmp_path, tokenizer=SpecialBytes, shared_tokenizer=False, target_tokenizer=BPE)
    assert (type(data.source_tokenizer), type(data.target_tokenizer)) == (SpecialBytes, BPE)
    with pytest.raises(ValueError, match=r"second tokenizer, but --data.shared_tokenizer is true; set --data.shared_t"):
        corpus(tmp_path, target_tokenizer=BPE)
    with pytest.raises(
        ValueError, match=r"--data.target_tokenizer Bytes has no pad, .* with --data.target_tokenizer.p"
    ):
        corpus(tmp_path, shared_tokenizer=False, target_tokenizer=Bytes)


class Given(PairCorpus):
    """Corpus of the given pairs."""

    def __init__(self, **splits):
        options = {"shared_tokenizer": True, "max_length": None, "too_long": "drop", "max_tokens": 64}
        super().__init__(tokenizer=BPE, **options, seed=0, predict_source=None)
        self.splits = splits

    def lines(self, split):
        return self.splits.get(split)

    def describe(self):
        return "what is given"


def test_splits_without_pairs():
    none = PairLines([], [])
    for splits in ({}, {"train": none}):
        with pytest.raises(ValueError, match="what is given has no training pairs; give a file with pairs"):
            Given(**splits).setup("fit")
    with pytest.raises(ValueError, match="what is given: the test split has no pairs; give some, or omit the split"):
        Given(train=PairLines(["a"], ["b"]), test=none).test_dataloader()
    with pytest.raises(ValueError, match="what is given: the validation split has no pairs"):
        Given(train=PairLines(["a"], ["b"]), validation=none).setup("fit")


def test_splits_that_are_missing(tmp_path):
    data = corpus(tmp_path)
    data.setup("fit")
    assert data.val_dataloader() == []
    with pytest.raises(ValueError, match=r"--data.path \S+ has no test split; give one with --data.test"):
        data.setup("test")


class Drawing(SpecialBytes):
    """Tokenizer that draws random numbers."""

    def encode(self, text: str) -> list[int]:
        return [random.randrange(3, 259) for _ in text]


class Padding(SpecialBytes):
    """Tokenizer that encodes an x as the padding id."""

    def encode(self, text: str) -> list[int]:
        return [0 if byte == ord("x") + 3 else byte for byte in super().encode(text)]


def test_cases_d6_a_tokenizer_of_your_own_that_gives_padding_is_refused(tmp_path):
    data = corpus(tmp_path, [("a", "b"), ("a", "box")], tokenizer=Padding)
    with pytest.raises(ValueError, match=r"^--data.tokenizer Padding gives the padding id 0 at place 2 of a text, but"):
        data.setup("fit")


def test_cases_d7_a_tokenizer_of_your_own_that_draws_is_refused(tmp_path):
    data = corpus(tmp_path, tokenizer=Drawing)
    with pytest.raises(
        ValueError, match=r"^--data.tokenizer Drawing encodes a text differently each time, so that no r"
    ):
        data.setup("fit")


def test_cases_d8_a_vocabulary_larger_than_its_meaning_is_reported(tmp_path, caplog):
    with caplog.at_level("INFO"):
        epoch(corpus(tmp_path, [("aaaa bbbb", "cccc dddd")] * 9, tokenizer=partial(BPE, 400)))
    (said,) = [each for each in caplog.messages if "vocab_size" in each]
    found = re.search(r"has ([0-9]+) ids, but --data.tokenizer.vocab_size is 400; the others are never generated", said)
    caplog.clear()
    data = corpus(tmp_path, [("aaaa bbbb", "cccc dddd")] * 9, tokenizer=partial(BPE, int(found[1])))
    with caplog.at_level("INFO"):
        epoch(data)
    assert "vocab_size" not in caplog.text
    assert list(data.target_tokenizer.unused) == [0, 1]
