"""Texts as sub-words: their tokens, the files that hold them, and bits per byte."""

import importlib
import json
import linecache
import logging
import math
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import TIMES, load_weights, read_rows
from tokenizers import Tokenizer as Library
from tokenizers import models, normalizers, pre_tokenizers

from lightning_xt import LanguageModel
from lightning_xt.cli import main
from lightning_xt.data.files import data_folder
from lightning_xt.data.files.file_digests import stat_files
from lightning_xt.data.text import tokenization
from lightning_xt.data.text.mapped_tokens import MappedTokens, choose_token_type
from lightning_xt.data.text.resident import ResidentTokens
from lightning_xt.data.text.text_files import TextFiles
from lightning_xt.data.text.windows import TrainingWindows
from lightning_xt.data.tokenizers.bpe import BPE
from lightning_xt.data.tokenizers.bytes import Bytes
from lightning_xt.data.tokenizers.custom_code import read_custom_code
from lightning_xt.data.tokenizers.numbers import Numbers
from lightning_xt.data.tokenizers.tokenizer_file import TokenizerFile

TEXT = "the quick brown fox jumps over the lazy dog, and the 2 dogs über alles <end> sleep\n" * 40
SUB_WORDS = ["--data.tokenizer", "BPE", "--data.tokenizer.vocab_size", "300"]
CONSTANT = ["--model.schedule", "null"]


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """Set an empty data folder and a text in the current folder; return the folder of prepared files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTNING_XT_DATA", str(tmp_path / "data"))
    Path("corpus.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path / "data" / "prepared"


def make(path="corpus.txt", size=300, **options):
    return TextFiles(path, seq_len=8, batch_size=2, tokenizer=partial(BPE, size), **options)


def decode(corpus, tokens):
    return corpus.tokenizer.decode(tokens[:].tolist())


def test_tokens_are_the_text(prepared):
    corpus = make(validation=0.1, test=0.2)
    for text, tokens in zip(corpus.tokens.text, corpus.splits, strict=True):
        assert decode(corpus, tokens).encode() == text[:].tobytes()
        assert tokens.dtype == np.uint16
        assert len(tokens) < 0.6 * len(text)
    assert corpus.bytes_per_token("test") == len(corpus.tokens.text.test) / len(corpus.splits.test)
    assert corpus.vocab == {"source": 300, "target": 300, "pad": None, "start": None, "end": None, "separator": None}
    batch = next(iter(corpus.train_dataloader()))
    assert batch.shape == (2, 9)
    assert corpus.describe_size(1).endswith(f" tokens of {corpus.bytes_per_token():.2f} bytes, 16 tokens a step")
    # A typed special token is text.
    assert not {0, 1, 2} & {*corpus.splits.train[:].tolist()}


def test_documents_are_opened_by_the_end_id(prepared):
    Path("lines.jsonl").write_text("\n".join(json.dumps({"text": f"document {n} <end>"}) for n in range(9)))
    corpus = make("lines.jsonl", field="text", documents="separator", validation=0, test=0)
    ids = corpus.splits.train[:].tolist()
    assert (corpus.separator, corpus.vocab["end"], corpus.tokenizer.start) == (2, 2, 2)
    assert ids.count(2) == 9
    opened = "\n".join(
        corpus.tokenizer.decode(part.tolist()) for part in np.split(ids, np.flatnonzero(np.equal(ids, 2)))
    )
    assert opened.split("\n")[1:] == [f"document {n} <end>" for n in range(9)]


def test_tokens_are_written_once(prepared, monkeypatch):
    first = make()
    assert first.splits.train.path.parent == prepared
    files = sorted(prepared.iterdir())
    assert [file.name.split("-")[0] for file in files if file.suffix == ".bin"] == ["tokenizer1", *["tokens1"] * 3]
    # Neither learned nor encoded again, and what was learned is restored.
    monkeypatch.setattr(BPE, "train", lambda *args: pytest.fail("learns again"))
    monkeypatch.setattr(BPE, "encode_arrays", lambda *args: pytest.fail("encodes again"))
    again = make()
    assert [part.path for part in again.splits] == [part.path for part in first.splits]
    assert again.tokenizer.trained_state == first.tokenizer.trained_state
    assert again.content_hash == first.content_hash
    monkeypatch.undo()


def test_a_file_belongs_to_its_text_and_tokenizer(prepared):
    paths = {make().splits.train.path, make(size=290).splits.train.path}
    Path("corpus.txt").write_text(TEXT.replace("fox", "cat"), encoding="utf-8")
    paths.add(make().splits.train.path)
    assert len(paths) == 3
    hashes = {make().content_hash, make(size=290).content_hash, TextFiles("corpus.txt").content_hash}
    assert len(hashes) == 3


def test_a_file_belongs_to_the_width_of_its_tokens(prepared):
    learned = make()
    file = learned.splits.train.path.with_name("tokenizer.json")
    file.write_text(learned.tokenizer.trained_state, encoding="utf-8")
    ids = {}
    for size in (300, 70_000):
        ids[size] = TextFiles("corpus.txt", tokenizer=partial(BPE, size, file=str(file))).splits.train
    assert (ids[300].dtype, ids[70_000].dtype) == (np.uint16, np.uint32)
    assert ids[300][:].tolist() == ids[70_000][:].tolist()


CUSTOM = """
from lightning_xt.data.tokenizers.bytes import Bytes
from lightning_xt.data.tokenizers.base import Tokenizer

class Shifted(Tokenizer):
    vocab_size = 999
    def encode(self, text): return [SHIFT + byte for byte in text.encode()]
    def decode(self, ids): return bytes(each - SHIFT for each in ids).decode()
    def stream(self): return Bytes().stream()
    def for_text(self, separated): return self
"""


def test_a_file_belongs_to_the_code_of_a_custom_tokenizer(prepared, monkeypatch):
    monkeypatch.syspath_prepend(".")
    first = {}
    for name, shift in (("mine", 1), ("other", 2), ("mine", 3), ("mine", 3)):
        Path(f"{name}_tokens.py").write_text(f"SHIFT = {shift}{CUSTOM}")
        monkeypatch.delitem(sys.modules, f"{name}_tokens", raising=False)
        importlib.invalidate_caches()
        linecache.checkcache()
        # Python takes a file of equal size and second for the same.
        shutil.rmtree("__pycache__", ignore_errors=True)
        kind = importlib.import_module(f"{name}_tokens").Shifted
        tokens = TextFiles("corpus.txt", tokenizer=kind).splits.train
        first[tokens.path] = tokens[:1].tolist()[0] - ord("t")
    assert list(first.values()) == [1, 2, 3]


def test_code_of_a_notebook_is_that_of_its_methods():
    lines = ["class Cell:\n", "    def encode(self):\n", "        return 1\n"]
    linecache.cache["<cell>"] = (1, None, lines, "<cell>")
    found: dict[str, type] = {"__name__": "lone"}  # type: ignore[dict-item]
    exec(compile("".join(lines), "<cell>", "exec"), found)
    assert read_custom_code(found["Cell"]) == ["lone.Cell " + "".join(lines[1:])]
    assert read_custom_code(BPE) == []


def test_tokens_of_another_version_are_made_again(prepared, caplog):
    path = make().splits.train.path
    old = path.rename(path.with_name(path.name.replace("tokens1", "tokens0")))
    with caplog.at_level(logging.INFO):
        assert make().splits.train.path == path
    assert f"{old} is from another version of lightning-xt; its tokens are made again" in caplog.text
    assert path.is_file()
    assert not old.exists()


@pytest.mark.parametrize("left", [0, 1], ids=["learning", "encoding"])
def test_a_text_that_changes_is_refused(prepared, monkeypatch, left):
    corpus = make()
    corpus.tokens.text  # noqa: B018 - prepares it
    # States of the file before each reading, of which the last one is of another file.
    states = iter([*[stat_files([Path("corpus.txt")])] * left, []])
    monkeypatch.setattr(tokenization, "stat_files", lambda paths: next(states))
    with pytest.raises(ValueError, match=r"--data.path corpus.txt changed during reading; start again when it is comp"):
        corpus.splits  # noqa: B018
    assert len(list(prepared.glob("tokenizer*"))) == left
    assert not list(prepared.glob("tokens*"))
    assert not list(prepared.glob(".*.part"))


def test_bytes_that_are_not_text_are_reported(prepared, caplog):
    Path("corpus.txt").write_bytes(TEXT.encode() + b"\xff\xfe caf\xe9 " + TEXT.encode())
    with caplog.at_level(logging.INFO):
        corpus = make(validation=0, test=0)
        assert "\ufffd\ufffd caf\ufffd " in decode(corpus, corpus.splits.train)
    assert "--data.path corpus.txt is not UTF-8 everywhere: 1 pieces of it have other bytes" in caplog.text


@pytest.mark.parametrize("more", range(4))
def test_splits_of_sub_words_divide_no_character(prepared, caplog, more):
    text = ("\u65e5\u672c\u8a9e\u3067\U0001f642" * 50 + "a" * more).encode()
    Path("corpus.txt").write_bytes(text)
    with caplog.at_level(logging.INFO):
        corpus = make(validation=0.1, test=0.1)
        found = [decode(corpus, part).encode() for part in corpus.splits]
    assert b"".join(found) == text and "not UTF-8" not in caplog.text
    exact = [len(part) for part in TextFiles("corpus.txt", validation=0.1, test=0.1).splits]
    assert exact[1:] == [len(text) // 10] * 2 and len(found[0]) - exact[0] in range(-3, 1)
    assert corpus.bytes_per_token("test") == len(found[2]) / len(corpus.splits.test)


class Dice(BPE):
    """Tokenizer that draws random numbers."""

    def encode_arrays(self, texts):
        return [np.random.default_rng().integers(3, 200, 50).astype(np.uint32) for _ in texts]


def test_a_random_tokenizer_is_refused(prepared):
    with pytest.raises(ValueError, match=r"--data.tokenizer Dice encodes a text differently each time"):
        TextFiles("corpus.txt", tokenizer=partial(Dice, 300)).splits  # noqa: B018
    with pytest.raises(ValueError, match=r"--data.tokenizer Numbers does not read long texts"):
        TextFiles("corpus.txt", tokenizer=partial(Numbers, 9))


class LateDice(BPE):
    """Tokenizer that draws random numbers for texts with content only."""

    def encode_arrays(self, texts):
        return [np.random.default_rng().integers(3, 200, 50 * bool(text)).astype(np.uint32) for text in texts]


def test_a_random_tokenizer_of_documents_is_refused(prepared):
    Path("lines.jsonl").write_text('{"text": "one document"}\n' * 20)
    corpus = TextFiles("lines.jsonl", field="text", documents="separator", tokenizer=partial(LateDice, 300))
    with pytest.raises(ValueError, match=r"--data.tokenizer LateDice encodes a text differently each time"):
        corpus.splits  # noqa: B018


def test_a_tokenizer_that_changes_texts_is_reported(prepared, caplog):
    library = Library(models.WordLevel({"[UNK]": 0, "the": 1, "fox": 2}, unk_token="[UNK]"))
    library.normalizer, library.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    library.save("words.json")
    corpus = TextFiles("corpus.txt", tokenizer=partial(TokenizerFile, "words.json"), validation=0, test=0)
    with caplog.at_level(logging.INFO):
        ids = corpus.splits.train[:].tolist()
    assert ids[:5] == [1, 0, 0, 2, 0]
    assert (
        "--data.tokenizer TokenizerFile changes texts: it does not keep characters for which it has no token; bits_per_"
        in (caplog.text)
    )
    assert corpus.bytes_per_token() == len(TEXT.encode()) / len(ids)


def test_processes_that_start_at_once_share_the_files(prepared):
    script = (
        "from functools import partial\n"
        "from lightning_xt.data.text.text_files import TextFiles\n"
        "from lightning_xt.data.tokenizers.bpe import BPE\n"
        "corpus = TextFiles('corpus.txt', tokenizer=partial(BPE, 300))\n"
        "print(corpus.splits.train.path, len(corpus.splits.train), hash(tuple(corpus.splits.train[:].tolist())))\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    found = {process.communicate()[0] for process in running}
    assert len(found) == 1
    assert found.pop().strip()
    assert len(list(prepared.glob("tokens1-*.bin"))) == 3


@pytest.mark.parametrize(("size", "kind"), [(65536, np.uint16), (65537, np.uint32)])
def test_a_large_vocabulary_has_longer_numbers(tmp_path, size, kind):
    assert choose_token_type(size) is kind
    ids = np.random.default_rng(0).integers(0, size, 997).astype(kind)
    ids[:9] = size - 1
    ids.tofile(tmp_path / "tokens")
    tokens = MappedTokens(tmp_path / "tokens", 3, 990, dtype=kind)
    assert np.array_equal(tokens[:], ids[3:990])
    windows = TrainingWindows(tokens, 7, seed=4)
    held, samples = ResidentTokens(tokens, torch.device("cpu")), [0, 5, 2**40]
    starts = torch.from_numpy(windows.offsets(samples))
    assert torch.equal(held.windows(starts, 7), windows.__getitems__(samples))
    assert held.windows(torch.tensor([0]), 7).max() == size - 1


def test_blocks_do_not_change_the_tokens(prepared, monkeypatch):
    expected = make().splits.train[:].tolist()
    monkeypatch.setattr(tokenization, "BATCH", 50)
    monkeypatch.setattr(tokenization, "BLOCK", 97)
    for file in prepared.glob("tokens1-*"):
        file.unlink()
    assert make().splits.train[:].tolist() == expected


def test_no_writable_folder_is_said(prepared, monkeypatch):
    monkeypatch.setattr(
        data_folder, "write_atomically", lambda *args: (_ for _ in ()).throw(OSError(28, "No space left"))
    )
    with pytest.raises(OSError, match=r"cannot write prepared data to .* \(No space left\)"):
        make().splits  # noqa: B018


def count_bits(run, text):
    """Return the bits of a text's tokens but the first, and the bytes of all, by a loop over single windows."""
    model = LanguageModel.load_from_checkpoint(f"{run}/checkpoints/best.ckpt", weights_only=True).eval()
    ids = torch.tensor(model.tokenizer.encode(text))
    bits = torch.zeros((), dtype=torch.float64)
    with torch.no_grad():
        for first in range(0, len(ids) - 1, 8):
            window = ids[first : first + 9][None]
            logits = model.decoder(window[:, :-1])
            scores = logits.double().log_softmax(-1).gather(-1, window[:, 1:, None])
            bits -= scores.sum() / math.log(2)
    return float(bits) / (len(ids) - 1) * len(ids) / len(text.encode())


def test_bits_are_those_of_bytes(fresh, capsys, caplog):
    assert main(["fit", "-c", "tiny.yaml", *SUB_WORDS]) == 0
    assert main(["validate", "runs/tiny"]) == 0
    assert "data differ" not in caplog.text
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("val/bits_per_byte=")]
    text = Path("corpus.txt").read_text()
    sizes = [int(len(text) * 0.05)] * 2
    held_out = text[len(text) - sum(sizes) : len(text) - sizes[1]]
    assert float(said[-1].partition("=")[2]) == pytest.approx(count_bits("runs/tiny/0", held_out), rel=1e-5)
    assert json.loads(Path("runs/tiny/0/text_tokenizer.json").read_text())["model"]["type"] == "BPE"
    assert main(["generate", "runs/tiny", "--prompt", "the fox", "--max_new_tokens", "5"]) == 0


def test_a_run_resumes_exactly_and_reads_from_a_device(fresh):
    assert main(["fit", "-c", "tiny.yaml", *SUB_WORDS, "--name", "whole", *CONSTANT]) == 0
    assert main(["fit", "-c", "tiny.yaml", *SUB_WORDS, "--name", "parts", "--trainer.max_steps", "4", *CONSTANT]) == 0
    assert main(["fit", "runs/parts", "--resume", "--trainer.max_steps", "6", "--data.resident", "true"]) == 0
    left, right = load_weights("runs/whole/0"), load_weights("runs/parts/0")
    assert all(torch.equal(left[name], right[name]) for name in left)
    for one, other in zip(read_rows("runs/whole/0"), read_rows("runs/parts/0"), strict=True):
        assert one | TIMES == other | TIMES


@pytest.mark.slow
def test_two_processes_train_and_measure_what_one_does(fresh, capsys):
    plain = [*SUB_WORDS, *CONSTANT, "--model.decoder.dropout=0", "--data.documents=separator"]
    assert main(["fit", "-c", "tiny.yaml", *plain, "--name", "one"]) == 0
    # An empty data folder: the first process of the machine learns and encodes, the other waits.
    environment = os.environ | {"LIGHTNING_XT_DATA": str(fresh / "other")}
    both = ["--name=two", "--data.batch_size=1", "--trainer.devices=2", "--trainer.strategy=ddp"]
    command = [sys.executable, "-m", "lightning_xt", "fit", "-c", "tiny.yaml", *plain, *both]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
    left, right = load_weights("runs/one/0"), load_weights("runs/two/0")
    assert all(torch.allclose(value, right[name], atol=1e-6) for name, value in left.items())
    found = [float(read_rows(f"runs/{name}/0")[-1]["val/bits_per_byte"]) for name in ("one", "two")]
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert Path("runs/one/0/text_tokenizer.json").read_text() == Path("runs/two/0/text_tokenizer.json").read_text()


def test_an_evaluation_reads_with_the_tokenizer_of_the_weights(fresh, capsys):
    assert main(["fit", "-c", "tiny.yaml", *SUB_WORDS]) == 0
    Path("other.txt").write_text("lazy foxes and brown dogs\n" * 60)
    capsys.readouterr()
    assert main(["validate", "runs/tiny", "--data.path", "other.txt"]) == 0
    # Another learned from the other text would split it otherwise; a new run with these weights would read it so.
    assert main(["fit", "-c", "tiny.yaml", *SUB_WORDS, "--data.path", "other.txt", "--init_from", "runs/tiny"]) == 2
    error = capsys.readouterr().err
    assert "the data's text tokenizer is not the one that the weights were trained with, but" in error
    assert "train again, or name its text_tokenizer.json with --data.tokenizer.file" in error
    file = ["--data.tokenizer.file", "runs/tiny/0/text_tokenizer.json"]
    options = [*SUB_WORDS, *file, "--data.path", "other.txt", "--init_from", "runs/tiny", "--name", "next"]
    assert main(["fit", "-c", "tiny.yaml", *options]) == 0


def test_a_text_that_has_grown_is_read_with_the_tokenizer_of_the_run(fresh, caplog):
    assert main(["fit", "-c", "tiny.yaml", *SUB_WORDS, *CONSTANT, "--trainer.max_steps", "4"]) == 0
    learned = Path("runs/tiny/0/text_tokenizer.json").read_text()
    with Path("corpus.txt").open("a") as file:
        file.write("zebras zigzag " * 100)
    assert main(["fit", "runs/tiny", "--resume", "--trainer.max_steps", "6"]) == 0
    assert "the data differ from the checkpoint's" in caplog.text
    assert Path("runs/tiny/0/text_tokenizer.json").read_text() == learned


def test_ids_that_a_short_text_leaves_are_reported(prepared, caplog):
    with caplog.at_level(logging.INFO):
        make(size=900).splits  # noqa: B018
    assert "--data.path corpus.txt: the tokenizer has " in caplog.text
    assert " ids, but --data.tokenizer.vocab_size is 900; the others are never generated" in caplog.text


def test_a_tokenizer_of_joined_texts_separates_those_of_an_evaluation(prepared):
    Path("lines.jsonl").write_text('{"text": "one document"}\n' * 20)
    trained = make().tokenizer
    trained.train(lambda: [TEXT])
    corpus = make("lines.jsonl", field="text", documents="separator")
    before = corpus.content_hash
    corpus.use_tokenizer(trained)
    assert corpus.separator == 2
    assert corpus.splits.train[:].tolist().count(2) == 18
    assert corpus.content_hash == before


def test_bytes_stay_in_their_file(prepared):
    corpus = TextFiles("corpus.txt")
    assert isinstance(corpus.tokenizer, Bytes)
    assert corpus.splits.train.path == Path("corpus.txt").absolute()
    assert corpus.bytes_per_token() == 1
    assert not prepared.exists() or not list(prepared.glob("tokens*"))
