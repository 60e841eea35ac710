"""A file, a folder, a pattern; and every way to get it wrong."""

import os

import pytest

from lightning_xt.data import reading
from lightning_xt.data.text_files import TextFiles, find_files


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_XT_DATA", str(tmp_path / "data"))
    root = tmp_path / "corpus"
    texts = {"b.txt": b"b" * 5, "a/z.md": b"z" * 3 + b"\n", "a/e.txt": b"", "a/y/q.txt": b"qq", ".hidden": b"no"}
    for name, content in {**texts, ".git/no.txt": b"no"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def text_of(data):
    splits = data.prepare()
    return splits.train.path.read_bytes()


def test_a_folder(corpus):
    assert text_of(TextFiles(str(corpus))) == b"qq\nzzz\nbbbbb"
    assert text_of(TextFiles(str(corpus) + "/")) == b"qq\nzzz\nbbbbb"


def test_a_pattern(corpus, monkeypatch):
    assert text_of(TextFiles(f"{corpus}/**/*.txt")) == b"qq\nbbbbb"
    monkeypatch.setenv("HOME", str(corpus))
    assert text_of(TextFiles("~/**/*.txt")) == b"qq\nbbbbb"
    monkeypatch.chdir(corpus)
    assert text_of(TextFiles("?.txt")) == b"bbbbb"


def test_a_name_that_looks_like_a_pattern(corpus):
    (corpus / "a[1].txt").write_bytes(b"brackets")
    assert find_files(str(corpus / "a[1].txt")) == [corpus / "a[1].txt"]


def test_a_single_file_is_not_copied(corpus, tmp_path):
    splits = TextFiles(str(corpus / "b.txt")).prepare()
    assert splits.train.path == corpus / "b.txt"
    assert not (tmp_path / "data").exists()


def test_splits_are_cut_from_the_end(tmp_path):
    file = tmp_path / "text"
    file.write_bytes(bytes(range(101)))
    splits = TextFiles(str(file), validation_fraction=0.1, test_fraction=0.05).prepare()
    # int(101 * 0.1) = 10 and int(101 * 0.05) = 5
    assert [list(split[:]) for split in splits] == [list(range(86)), list(range(86, 96)), list(range(96, 101))]
    splits = TextFiles(str(file), validation_fraction=0.0, test_fraction=0.0).prepare()
    assert len(splits.train) == 101 and splits.validation is None and splits.test is None


def test_training_without_a_validation_split(tmp_path):
    file = tmp_path / "text"
    file.write_bytes(bytes(range(101)))
    data = TextFiles(str(file), validation_fraction=0.0, test_fraction=0.0, seq_len=7)
    data.setup("fit")
    assert data.val_dataloader() == []
    with pytest.raises(ValueError, match=r"has no validation split; set --data.validation_fraction"):
        data.setup("validate")
    with pytest.raises(ValueError, match=r"has no test split; set --data.test_fraction"):
        data.setup("test")


def test_blocks_do_not_change_the_text(corpus, monkeypatch):
    monkeypatch.setattr(reading, "BLOCK", 2)
    assert text_of(TextFiles(str(corpus))) == b"qq\nzzz\nbbbbb"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("none.txt", "--data.path .*none.txt: there is no such file or folder; check the path"),
        ("*.html", r"--data.path .*\*.html: no file matches this pattern; check it, and quote it"),
        (".git/../void", "--data.path .*void: the folder holds no files"),
    ],
)
def test_nothing_there(corpus, path, message):
    (corpus / "void").mkdir()
    (corpus / "void" / ".hidden").write_text("no")
    with pytest.raises(FileNotFoundError, match=message):
        TextFiles(str(corpus / path)).setup("fit")


def test_neither_file_nor_folder(corpus):
    os.mkfifo(corpus / "pipe")
    with pytest.raises(ValueError, match=r"--data.path .*pipe is neither a regular file nor a folder"):
        TextFiles(str(corpus / "pipe")).setup("fit")


def test_empty(corpus, tmp_path):
    with pytest.raises(ValueError, match=r"--data.path .*e.txt: the file is empty; give text"):
        TextFiles(str(corpus / "a" / "e.txt")).setup("fit")
    (corpus / "e.txt").write_text("")
    with pytest.raises(ValueError, match=r"--data.path .*: all 2 files are empty; give text"):
        TextFiles(str(corpus / "**" / "e.txt")).setup("fit")
    assert not (tmp_path / "data").exists()


def test_unreadable(corpus, tmp_path, monkeypatch):
    def refuse(path, mode):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(reading, "open", refuse, raising=False)
    for path in (corpus / "b.txt", corpus):
        with pytest.raises(ValueError, match=r"cannot read .* \(Permission denied\); make it readable"):
            TextFiles(str(path)).setup("fit")
    assert not (tmp_path / "data").exists()


def test_a_corpus_too_short(tmp_path):
    file = tmp_path / "text"
    file.write_bytes(bytes(101))
    # 91 tokens to train on, 5 each for validation and test.
    with pytest.raises(
        ValueError,
        match=r"^data.seq_len 91 needs at least 92 tokens in a split, but the train split of --data.path .*text has "
        r"91; lower --data.seq_len to at most 90 or give more text$",
    ):
        TextFiles(str(file), seq_len=91).setup("fit")
    message = "the {0} split of --data.path .* has 5; lower --data.seq_len to at most 4 or raise --data.{0}_fraction"
    for stage, split in {"fit": "validation", "validate": "validation", "test": "test"}.items():
        with pytest.raises(ValueError, match=message.format(split)):
            TextFiles(str(file), seq_len=5).setup(stage)
    TextFiles(str(file), seq_len=4).setup("fit")
    file.write_bytes(bytes(1))
    with pytest.raises(ValueError, match=r"has 1; give more text"):
        TextFiles(str(file), seq_len=1).setup("fit")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_fraction": 1.0}, "data.validation_fraction must be at least 0 and below 1, not 1.0"),
        ({"test_fraction": -0.1}, "data.test_fraction must be at least 0 and below 1, not -0.1"),
        ({"validation_fraction": 0.5, "test_fraction": 0.5}, r"\(0.5\) and data.test_fraction \(0.5\) leave nothing"),
        ({"seq_len": 0}, "data.seq_len must be at least 1, not 0"),
        ({"batch_size": -2}, "data.batch_size must be at least 1, not -2"),
        ({"eval_batch_size": 0}, "data.eval_batch_size must be at least 1, not 0"),
        ({"num_workers": -1}, "data.num_workers must be at least 0, not -1"),
        ({"stride": 0}, r"data.stride must be from 1 to data.seq_len \(256\), not 0"),
        ({"stride": 257}, r"data.stride must be from 1 to data.seq_len \(256\), not 257"),
        ({"seed": -1}, "data.seed must be from 0 to"),
        ({"seed": 2**64}, "data.seed must be from 0 to"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        TextFiles("anything", **options)
