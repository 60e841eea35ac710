"""Multi30k: the places of its files, and the download of missing ones."""

import gzip
import os

import pytest

from lightning_xt.data.pairs.multi30k import Multi30k
from lightning_xt.data.pairs.pair_files import PairLines
from lightning_xt.data.tokenizers.special_bytes import SpecialBytes

SIZES = {"train": 6, "val": 3, "test_2016_flickr": 2}
UNUSED = "http://127.0.0.1:1/unused"


@pytest.fixture
def data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_XT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "data"


def write(folder, ending="", languages=("en", "de")):
    """Write all files into a folder; line n of train.en is 'train.en n'."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in SIZES.items():
        for language in languages:
            name = f"{split}.{language}"
            content = "".join(f"{name} {number}\n" for number in range(count)).encode()
            (folder / f"{name}{ending}").write_bytes(gzip.compress(content) if ending else content)
    return folder


def expected(split, source="en", target="de"):
    sides = [[f"{split}.{language} {number}" for number in range(SIZES[split])] for language in (source, target)]
    return PairLines(*sides)


def splits(data):
    return [data.lines(split) for split in ("train", "validation", "test")]


ALL = [expected(split) for split in SIZES]


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_files_of_the_data_folder(data_folder, ending):
    write(data_folder / "multi30k", ending)
    data = Multi30k(base_url=UNUSED)
    assert splits(data) == ALL
    assert data.describe() == "--data Multi30k"


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_files_of_a_folder_of_ones_own(data_folder, tmp_path, monkeypatch, ending):
    folder = write(tmp_path / "own", ending)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for path in (str(folder), "~/own", "own"):
        assert splits(Multi30k(path=path, base_url=UNUSED)) == ALL
    write(data_folder / "there")
    assert splits(Multi30k(path="there", base_url=UNUSED)) == ALL


def test_what_is_not_packed_comes_first(data_folder):
    folder = write(data_folder / "multi30k", ".gz")
    (folder / "val.en").write_text("one\ntwo\nthree\n")
    assert Multi30k(base_url=UNUSED).lines("validation").sources == ["one", "two", "three"]


def test_languages(data_folder):
    write(data_folder / "multi30k", languages=("fr", "de"))
    data = Multi30k(languages=("de", "fr"), base_url=UNUSED)
    assert data.lines("test") == expected("test_2016_flickr", "de", "fr")


def test_a_download_of_what_is_absent(data_folder, server):
    write(server.root / "raw", ".gz")
    write(data_folder / "multi30k", ".gz")
    for name in ("train.de.gz", "test_2016_flickr.en.gz"):
        (data_folder / "multi30k" / name).unlink()
    data = Multi30k(base_url=f"{server.url}/raw/")
    assert data.lines("train") == ALL[0]
    assert server.asked == ["/raw/train.de.gz"]
    # The file exists after that.
    assert splits(data) == ALL
    assert server.asked == ["/raw/train.de.gz", "/raw/test_2016_flickr.en.gz"]
    assert sorted(os.listdir(data_folder / "multi30k")) == sorted(os.listdir(server.root / "raw"))


def test_a_download_of_all(data_folder, server):
    write(server.root / "raw", ".gz")
    data = Multi30k(base_url=f"{server.url}/raw/", tokenizer=SpecialBytes)
    assert not data_folder.exists()
    data.setup("fit")
    assert sorted(server.asked) == [f"/raw/{split}.{side}.gz" for split in ("train", "val") for side in ("de", "en")]
    assert [row.references for row in data.val_dataloader()] == [expected("val").targets]
    data.setup("test")
    assert len(server.asked) == 6
    assert [row.references for row in data.test_dataloader()] == [expected("test_2016_flickr").targets]


def test_the_public_source():
    assert Multi30k().base_url == "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw"


def test_what_the_server_does_not_have(data_folder, server):
    write(server.root / "raw", ".gz")
    with pytest.raises(
        OSError, match=rf"^cannot download {server.url}/raw/train.cs.gz \(the server answers 404 .*\); run"
    ):
        Multi30k(base_url=f"{server.url}/raw/", languages=("en", "cs")).lines("train")
    assert [path.name for path in (data_folder / "multi30k").glob("[!.]*")] == ["train.en.gz"]


def test_a_folder_of_ones_own_that_lacks_a_file(data_folder, server, tmp_path):
    write(server.root / "raw", ".gz")
    folder = write(tmp_path / "own")
    (folder / "val.de").unlink()
    data = Multi30k(path=str(folder), base_url=f"{server.url}/raw/")
    assert data.lines("train") == ALL[0]
    message = (
        rf"^--data.path {folder} has neither val.de nor val.de.gz; put train.en, train.de, val.en, val.de, "
        r"test_2016_flickr.en, test_2016_flickr.de there, plain or .gz, or omit --data.path to download them$"
    )
    with pytest.raises(FileNotFoundError, match=message):
        data.lines("validation")
    assert server.asked == [] and not (folder / "val.de.gz").exists()
    assert data.describe() == f"--data.path {folder}"


@pytest.mark.parametrize("path", ["none", "file"])
def test_no_folder(data_folder, tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        FileNotFoundError, match=rf"^--data.path {path}: there is no such folder, here or in the data f"
    ):
        Multi30k(path=path, base_url=UNUSED).lines("train")


def test_files_of_different_line_counts(data_folder):
    folder = write(data_folder / "multi30k")
    (folder / "val.de").write_text("one\n")
    with pytest.raises(ValueError, match=rf"^{folder}/val.en has 3 lines, but {folder}/val.de has 1; give two files"):
        Multi30k(base_url=UNUSED).lines("validation")


def test_blank_sides_are_skipped_in_training_only(data_folder, monkeypatch):
    told = []
    monkeypatch.setattr("lightning_xt.data.pairs.pair_files.rank_zero_info", told.append)
    folder = write(data_folder / "multi30k")
    for name in ("train.en", "val.en"):
        (folder / name).write_text("\n" + "x\n" * (SIZES[name.partition(".")[0]] - 1))
    data = Multi30k(base_url=UNUSED)
    assert len(data.lines("train").sources) == 5 and data.lines("validation").sources == ["", "x", "x"]
    assert told == ["--data Multi30k: 1 of 6 training pairs have a blank side and are dropped"]


@pytest.mark.parametrize("languages", [("en",), ("en", "en"), ("en", "../de"), ("en", ""), ("en", "de", "fr")])
def test_languages_that_cannot_be(languages):
    with pytest.raises(
        ValueError, match=r"^--data.languages must be two different ones, not \['en'.*\]; write the source"
    ):
        Multi30k(languages=languages)
