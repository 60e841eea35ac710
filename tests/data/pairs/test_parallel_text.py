"""ParallelText: the pairs of each split, and the options that name them."""

import json

import pytest

from lightning_xt.data.pairs.pair_files import PairLines
from lightning_xt.data.pairs.parallel_text import ParallelText
from lightning_xt.data.tokenizers.bpe import BPE
from lightning_xt.data.tokenizers.special_bytes import SpecialBytes


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Return a function that writes sources 0, 1, ... and targets -0, -1, ... into two files of the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTNING_XT_DATA", str(tmp_path / "data"))

    def write(name, count, first=0):
        numbers = range(first, first + count)
        (tmp_path / f"{name}.en").write_text("".join(f"{number}\n" for number in numbers))
        (tmp_path / f"{name}.de").write_text("".join(f"-{number}\n" for number in numbers))

    return write


def pairs(*numbers):
    return PairLines([str(number) for number in numbers], [f"-{number}" for number in numbers])


def splits(data):
    return [data.lines(split) for split in ("train", "validation", "test")]


def test_shares_are_cut_from_the_end(write):
    write("x", 40)
    data = ParallelText("x.en", target_path="x.de", validation=0.1, test=0.25)
    assert splits(data) == [pairs(*range(26)), pairs(*range(26, 30)), pairs(*range(30, 40))]
    assert splits(ParallelText("x.en", target_path="x.de")) == [pairs(*range(36)), pairs(36, 37), pairs(38, 39)]


def test_a_fraction_of_few_pairs_is_one(write):
    write("x", 3)
    assert splits(ParallelText("x.en", target_path="x.de")) == [pairs(0), pairs(1), pairs(2)]
    data = ParallelText("x.en", target_path="x.de", validation=0, test=0)
    assert splits(data) == [pairs(0, 1, 2), None, None]
    write("x", 2)
    message = (
        r"^--data.path x.en: of its 2 pairs validation takes 1 and test 1, which leaves none to train on; give more, "
        r"or set --data.validation 0 or --data.test 0$"
    )
    for split in ("train", "validation", "test"):
        with pytest.raises(ValueError, match=message):
            ParallelText("x.en", target_path="x.de").lines(split)


def test_splits_with_separate_files(write):
    for name, first in (("x", 0), ("val", 100), ("test", 200)):
        write(name, 4, first)
    own = {"validation": "val.en", "validation_target_path": "val.de"}
    data = ParallelText("x.en", target_path="x.de", **own, test=0.5)
    assert splits(data) == [pairs(0, 1), pairs(100, 101, 102, 103), pairs(2, 3)]
    data = ParallelText("x.en", target_path="x.de", **own, test="test.en", test_target_path="test.de")
    assert splits(data) == [pairs(0, 1, 2, 3), pairs(100, 101, 102, 103), pairs(200, 201, 202, 203)]


def test_both_sides_in_one_file(tmp_path, write):
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({"a": f"-{n}", "b": str(n)}) + "\n" for n in range(4)))
    (tmp_path / "val.tsv").write_text("7\t-7\n")
    (tmp_path / "test.jsonl").write_text('{"a": "-8", "b": "8"}\n')
    data = ParallelText("x.jsonl", fields=("b", "a"), validation="val.tsv", test="test.jsonl")
    assert splits(data) == [pairs(0, 1, 2, 3), pairs(7), pairs(8)]
    # Sources for prediction are read by the same name.
    (tmp_path / "new.jsonl").write_text('{"b": "9"}\n')
    data = ParallelText("x.jsonl", fields=("b", "a"), predict_source="new.jsonl")
    data.setup("predict")
    batches = list(data.predict_dataloader())
    assert batches == [[{"id": 0, "text": "9", "problem": None}]]


def test_blank_sides_are_skipped_in_training_only(tmp_path, write, monkeypatch):
    told = []
    monkeypatch.setattr("lightning_xt.data.pairs.pair_files.rank_zero_info", told.append)
    (tmp_path / "x.tsv").write_text("0\t-0\n\t-1\n2\t \n3\t\n\t-4\n")
    data = ParallelText("x.tsv", validation=0.2, test=0.2)
    assert splits(data) == [pairs(0), PairLines(["3"], [""]), PairLines([""], ["-4"])]
    assert told == ["--data.path x.tsv: 2 of 3 training pairs have a blank side and are dropped"]


def test_what_a_model_gets(write):
    write("x", 30)
    data = ParallelText("x.en", target_path="x.de", tokenizer=SpecialBytes, validation=0.1)
    assert data.vocab == {"source": 259, "target": 259, "pad": 0, "start": 1, "end": 2, "separator": None}
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    sources = [data.source_tokenizer.decode(row) for row in batch.src.tolist()]
    targets = [data.target_tokenizer.decode(row) for row in batch.tgt.tolist()]
    assert sorted(sources, key=int) == [str(number) for number in range(26)]
    assert targets == [f"-{source}" for source in sources]
    # Ordered by length; the references stand as in the file.
    assert [row.references for row in data.val_dataloader()] == [["-26", "-27", "-28"]]
    data.setup("test")
    assert [(row.index.tolist(), row.references) for row in data.test_dataloader()] == [([0], ["-29"])]


@pytest.mark.parametrize("shared", [True, False])
def test_tokenizers_learn_from_the_training_split(write, shared):
    write("x", 60)
    data = ParallelText("x.en", target_path="x.de", tokenizer=lambda: BPE(270), shared_tokenizer=shared)
    data.setup("fit")
    train = data.lines("train")
    expected = [[*train.sources, *train.targets]] if shared else [train.sources, train.targets]
    for tokenizer, texts in zip([data.source_tokenizer, data.target_tokenizer], expected * 2, strict=False):
        alone = BPE(270)
        alone.train(lambda texts=texts: texts)
        assert tokenizer.init_args == alone.init_args
    assert (data.source_tokenizer is data.target_tokenizer) == shared


def test_no_split_to_test_on(write):
    write("x", 9)
    data = ParallelText("x.en", target_path="x.de", tokenizer=SpecialBytes, test=0)
    message = r"^--data.path x.en has no test split; give one with --data.test$"
    with pytest.raises(ValueError, match=message):
        data.setup("test")


def test_files_of_different_line_counts(tmp_path, write):
    write("x", 9)
    (tmp_path / "x.de").write_text("-0\n")
    with pytest.raises(ValueError, match=r"^x.en has 9 lines, but x.de has 1; give two files"):
        ParallelText("x.en", target_path="x.de").setup("fit")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 1.0}, "^--data.validation 1.0 is not a fraction: it must be at least 0 and below 1"),
        ({"test": -0.1}, "^--data.test -0.1 is not a fraction: it must be at least 0 and below 1"),
        (
            {"validation": 0.5, "test": 0.5},
            r"^--data.validation 0.5 and --data.test 0.5 leave nothing to train on; lower them",
        ),
        (
            {"test_target_path": "x.de"},
            "^--data.test_target_path x.de needs the file of its sources; name it with --data.test$",
        ),
        (
            {"fields": ("en", "en")},
            r"^--data.fields must be two different names, not \['en', 'en'\]; name the source fi",
        ),
        ({"fields": ("en",)}, r"^--data.fields must be two different names, not \['en'\]; name the source first, such"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        ParallelText("x.en", **options)


def test_cases_d20_pairs_that_are_measured_are_not_trained_on(write, tmp_path):
    write("x", 40)
    (tmp_path / "link.en").symlink_to("x.en")
    for split in ("validation", "test"):
        for path in ("x.en", "link.en", str(tmp_path / "x.en")):
            given = {split: path, f"{split}_target_path": "x.de"}
            data = ParallelText("x.en", target_path="x.de", **given)
            with pytest.raises(
                ValueError, match=rf"--data.{split} \S+ is the file of --data.path x.en too, and pairs th"
            ):
                data.lines("train")
            # They can be measured.
            assert data.lines(split) == pairs(*range(40))


@pytest.mark.parametrize(("lengths", "said"), [(range(1, 401), True), ([*range(1, 21)] * 20, False)])
def test_cases_d20_sorted_pairs_are_reported(tmp_path, caplog, lengths, said):
    file = tmp_path / "pairs.tsv"
    file.write_text("".join(f"{'a' * length}\tb\n" for length in lengths))
    with caplog.at_level("INFO"):
        ParallelText(str(file)).lines("train")
    expected = (
        f"--data.path {file}: its last 40 sources, which are held out, have 380 characters on average and the others "
        "180; if the pairs are sorted, shuffle them, or give files for --data.validation and --data.test"
    )
    assert caplog.messages == [expected] * said
