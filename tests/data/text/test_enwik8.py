"""Enwik8: the places of the file, its checks, and damaged files."""

import gzip
import hashlib
import os
import zipfile

import pytest

from lightning_xt.cli import main
from lightning_xt.data.text import enwik8
from lightning_xt.data.text.enwik8 import Enwik8
from lightning_xt.system.messages import find_own_sentence

TEXT = b"".join(b"<page>%d</page>\n" % n for n in range(700))[:10_500]
SIZES = (9_000, 500, 500)
RIGHT, WRONG = hashlib.md5(TEXT).hexdigest(), "0" * 32


def write(path, text=TEXT):
    """Write a text in the format of its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("enwik8", text)
    else:
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def read(split):
    return bytes(split[0 : len(split)])


def find_prepared(folder):
    """Return the texts that were unpacked into the data folder."""
    return sorted(path.name for path in folder.glob("prepared/enwik8*"))


@pytest.mark.parametrize("place", ["", "enwik8/"])
@pytest.mark.parametrize("name", ["enwik8", "enwik8.gz", "enwik8.zip"])
def test_a_file_of_the_data_folder(folder, place, name):
    file = write(folder / f"{place}{name}")
    splits = Enwik8(split_sizes=SIZES, url="http://127.0.0.1:1/unused").prepare()
    assert read(splits.train) == TEXT[:9000]
    assert read(splits.validation) == TEXT[9000:9500]
    assert read(splits.test) == TEXT[9500:10000]
    assert (splits.train.path == file) == (name == "enwik8")
    assert len(find_prepared(folder)) == (name != "enwik8")


def test_what_needs_no_unpacking_comes_first(folder):
    write(folder / "enwik8.zip", b"z" * 10_000)
    write(folder / "enwik8.gz", b"g" * 10_000)
    data = Enwik8(split_sizes=SIZES)
    assert read(data.prepare().test) == b"g" * 500
    write(folder / "enwik8", b"r" * 10_000)
    assert read(data.prepare().test) == b"r" * 500


@pytest.mark.parametrize("name", ["enwik8.zip", "enwik8.gz", "ENWIK8.ZIP", "enwik8", "dump.txt"])
def test_a_download(folder, server, name):
    small = write(server.root / name.lower())
    small.rename(server.root / name)
    data = Enwik8(split_sizes=SIZES, url=f"{server.url}/{name}?raw=1", md5=RIGHT.upper())
    assert read(data.prepare().validation) == TEXT[9000:9500]
    kind = name.lower().partition("enwik8")[2]
    assert os.listdir(folder / "enwik8") == [f"enwik8{kind}"]
    # The file exists after that.
    assert read(data.prepare().train) == TEXT[:9000]
    assert len(server.asked) == 1


def test_unpacked_once(folder, monkeypatch):
    write(folder / "enwik8.zip")
    path = Enwik8(split_sizes=SIZES).prepare().train.path
    monkeypatch.setattr(enwik8, "read_entries", lambda archive: pytest.fail("unpacked again"))
    assert Enwik8(split_sizes=SIZES).prepare().train.path == path


def test_the_checksum_is_computed_once(folder, monkeypatch):
    write(folder / "enwik8")
    monkeypatch.setattr("lightning_xt.data.files.file_digests.RECENT", -1e9)  # the file counts as old
    Enwik8(split_sizes=SIZES, md5=RIGHT).prepare()
    raw_blocks = "lightning_xt.data.files.file_digests.read_raw_blocks"
    monkeypatch.setattr(raw_blocks, lambda path: pytest.fail("computed again"))
    Enwik8(split_sizes=SIZES, md5=RIGHT).prepare()


@pytest.mark.parametrize("name", ["enwik8", "enwik8.gz", "enwik8.zip"])
def test_a_wrong_checksum_leaves_a_file_of_the_users(folder, name):
    file = write(folder / name)
    content = file.read_bytes()
    with pytest.raises(ValueError, match=rf"{file} has the MD5 checksum {RIGHT}, not {WRONG}; put a good copy in its"):
        Enwik8(split_sizes=SIZES, md5=WRONG).prepare()
    assert file.read_bytes() == content and find_prepared(folder) == []


@pytest.mark.parametrize("name", ["enwik8", "enwik8.gz", "enwik8.zip"])
def test_a_wrong_checksum_removes_a_download(folder, server, name):
    write(server.root / name)
    data = Enwik8(split_sizes=SIZES, url=f"{server.url}/{name}", md5=WRONG)
    for _ in range(2):
        with pytest.raises(ValueError, match=rf"MD5 checksum {RIGHT}, not {WRONG}; it was removed, run the command"):
            data.prepare()
        assert os.listdir(folder / "enwik8") == [] and find_prepared(folder) == []
    assert len(server.asked) == 2


def test_a_page_in_place_of_the_file_is_removed(folder, server):
    (server.root / "enwik8.zip").write_text("<html>Please log in</html>")
    with pytest.raises(ValueError, match=r"enwik8.zip is cut off, damaged or not a zip file") as caught:
        Enwik8(url=f"{server.url}/enwik8.zip").prepare()
    assert os.listdir(folder / "enwik8") == []
    assert find_own_sentence(caught.value) == str(caught.value)


def test_a_network_that_fails_says_where_to_put_the_file(folder, server):
    place = folder / "enwik8" / "enwik8.zip"
    with pytest.raises(OSError, match=rf"cannot download .*404 File not found.*or put the file at {place}$") as caught:
        Enwik8(url=f"{server.url}/enwik8.zip").prepare()
    assert not place.exists()
    # The message of the command line, not that of the network.
    assert find_own_sentence(caught.value) == str(caught.value)


@pytest.fixture
def zeros(folder):
    """Write a sparse file of the right size."""
    file = folder / "enwik8"
    with open(file, "wb") as content:
        content.truncate(enwik8.SIZE)
    return file


def test_a_text_of_the_right_size_must_have_the_right_checksum(zeros):
    with pytest.raises(ValueError, match=r"has the MD5 checksum .{32}, not a1fa5ffddb56f4953e226637dabbb36a; put a"):
        Enwik8().prepare()


def test_the_canonical_splits(zeros, monkeypatch):
    monkeypatch.setattr(enwik8, "hash_file", lambda path, algorithm: enwik8.MD5)
    assert [len(split) for split in Enwik8().prepare()] == [90_000_000, 5_000_000, 5_000_000]
    with pytest.raises(ValueError, match=r"need 100,000,001 bytes together, but .*enwik8 holds 100,000,000; lower"):
        Enwik8(split_sizes=(90_000_000, 5_000_000, 5_000_001)).prepare()


def test_the_canonical_splits_of_another_text(folder):
    file = write(folder / "enwik8")
    sentence = rf"{file} holds 10,500 bytes, but enwik8 has 100,000,000 \(lower --data.split_sizes.*\); put a good copy"
    with pytest.raises(ValueError, match=sentence):
        Enwik8().prepare()


def test_splits_that_are_longer_than_the_text(folder, server):
    write(server.root / "enwik8.zip")
    data = Enwik8(split_sizes=(9000, 500, 1001), url=f"{server.url}/enwik8.zip")
    sentence = (
        r"--data.split_sizes \[9000, 500, 1001\] need 10,501 bytes together, but .*enwik8.zip holds 10,500; lower"
    )
    with pytest.raises(ValueError, match=sentence):
        data.prepare()
    # The option is wrong, and the file is right.
    assert os.listdir(folder / "enwik8") == ["enwik8.zip"]
    assert len(Enwik8(split_sizes=(9000, 500, 1000)).prepare().test) == 1000


@pytest.mark.parametrize("names", [(), ("enwik8", "readme.txt")])
def test_an_archive_of_another_form(folder, names):
    with zipfile.ZipFile(folder / "enwik8.zip", "w") as archive:
        for name in names:
            archive.writestr(name, TEXT)
    with pytest.raises(ValueError, match=rf"enwik8.zip holds {len(names)} files, not one; unpack enwik8 yourself"):
        Enwik8(split_sizes=SIZES).prepare()
    assert find_prepared(folder) == [] and os.listdir(folder / "prepared") == []


@pytest.mark.parametrize("sizes", [(9000, 0, 500), (9000, 500), (-1, 500, 500)])
def test_sizes_that_are_invalid(sizes):
    with pytest.raises(
        ValueError, match=r"--data.split_sizes must be three numbers of at least 1, not \[.*--data.split"
    ):
        Enwik8(split_sizes=sizes)


@pytest.mark.parametrize("md5", ["", "a1fa", "g" * 32])
def test_a_checksum_that_is_malformed(md5):
    with pytest.raises(ValueError, match=rf"--data.md5 must be 32 hexadecimal digits, not '{md5}'; .*omit --data.md5"):
        Enwik8(md5=md5)


def test_a_url_of_another_kind(folder):
    with pytest.raises(ValueError, match=r"cannot download 'ftp://host/enwik8.zip'; give a URL that begins with http"):
        Enwik8(url="ftp://host/enwik8.zip").prepare()


def test_a_split_shorter_than_a_window(folder):
    write(folder / "enwik8")
    with pytest.raises(ValueError, match=r"but the test split of --data Enwik8 has 500; .*raise its size in --data.s"):
        Enwik8(split_sizes=SIZES, seq_len=500).setup("test")


def test_from_the_command_line(folder, server, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(server.root / "enwik8.zip")
    config = """
data:
  class_path: Enwik8
  init_args: {seq_len: 16, batch_size: 2, eval_batch_size: 16}
model: {init_args: {decoder: {dim: 32, depth: 1}}}
trainer: {max_steps: 1, accelerator: cpu, devices: 1, enable_progress_bar: false, logger: false}
sample_text: {generation: {max_new_tokens: 4}}
"""
    (tmp_path / "tiny.yaml").write_text(config)
    url = ["--data.url", f"{server.url}/enwik8.zip"]
    assert main(["fit", "-c", "tiny.yaml", "--data.split_sizes", "[9000,500,500]", *url]) == 0
    assert "val/bits_per_byte=" in capsys.readouterr().out
