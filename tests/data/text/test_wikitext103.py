"""WikiText103: the places of its files, the download, and archives of another form."""

import os
import zipfile

import pytest

from lightning_xt.cli import main
from lightning_xt.data.text import wikitext103
from lightning_xt.data.text.wikitext103 import ARCHIVE, FILES, WikiText103

TEXTS = {
    name: f" = {name} = \n \n A line of it . \n".encode() * count
    for name, count in zip(FILES, (90, 20, 21), strict=True)
}


def write(path, names=FILES):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(f"wikitext-103-raw/{name}", TEXTS[name])


def read(splits):
    return [bytes(split[0 : len(split)]) for split in splits]


@pytest.mark.parametrize("place", [ARCHIVE, f"wikitext-103-raw/{ARCHIVE}"])
def test_an_archive_of_the_data_folder(folder, place, monkeypatch):
    write(folder / place)
    data = WikiText103(archive_url="http://127.0.0.1:1/unused")
    assert read(data.prepare()) == list(TEXTS.values())
    monkeypatch.setattr(wikitext103, "_entry", lambda archive, name: lambda: pytest.fail("unpacked again"))
    assert read(data.prepare()) == list(TEXTS.values())


def test_files_that_are_unpacked_already(folder):
    (folder / "wikitext-103-raw").mkdir()
    for name, text in TEXTS.items():
        (folder / "wikitext-103-raw" / name).write_bytes(text)
    splits = WikiText103(archive_url="http://127.0.0.1:1/unused").prepare()
    assert read(splits) == list(TEXTS.values())
    assert not (folder / "prepared").exists()


def test_a_download(folder, server):
    write(server.root / ARCHIVE)
    data = WikiText103(archive_url=f"{server.url}/{ARCHIVE}")
    for _ in range(2):
        assert read(data.prepare()) == list(TEXTS.values())
    assert len(server.asked) == 1


def test_an_archive_without_a_split(folder, server):
    write(server.root / ARCHIVE, FILES[:2])
    with pytest.raises(ValueError, match=r"has no wiki.test.raw; it was removed, run the command again$"):
        WikiText103(archive_url=f"{server.url}/{ARCHIVE}").prepare()
    assert os.listdir(folder / "wikitext-103-raw") == []
    write(folder / ARCHIVE, FILES[1:])
    with pytest.raises(ValueError, match=rf"{ARCHIVE} has no wiki.train.raw; put a good copy in its place$"):
        WikiText103().prepare()
    assert (folder / ARCHIVE).is_file() and not (folder / "prepared").exists()


def test_a_network_that_fails_says_where_to_put_the_archive(folder, server):
    place = folder / "wikitext-103-raw" / ARCHIVE
    with pytest.raises(OSError, match=rf"cannot download .*404 File not found.*or put the file at {place}$"):
        WikiText103(archive_url=f"{server.url}/{ARCHIVE}").prepare()


def test_a_split_shorter_than_a_window(folder):
    write(folder / ARCHIVE)
    with pytest.raises(ValueError, match=r"test split of --data WikiText103 has .*; .*put a longer wiki.test.raw in"):
        WikiText103(seq_len=1000).setup("test")


def test_from_the_command_line(folder, server, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(server.root / ARCHIVE)
    config = """
data:
  class_path: WikiText103
  init_args:
    seq_len: 16
    batch_size: 2
    eval_batch_size: 16
    tokenizer: {class_path: BPE, init_args: {vocab_size: 270}}
model: {init_args: {decoder: {dim: 32, depth: 1}}}
trainer: {max_steps: 1, accelerator: cpu, devices: 1, enable_progress_bar: false, logger: false}
sample_text: {generation: {max_new_tokens: 4}}
"""
    (tmp_path / "tiny.yaml").write_text(config)
    assert main(["fit", "-c", "tiny.yaml", "--data.archive_url", f"{server.url}/{ARCHIVE}"]) == 0
    assert "val/bits_per_byte=" in capsys.readouterr().out
