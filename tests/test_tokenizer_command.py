"""The command `tokenizer train`."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from lightning_xt.cli import main
from lightning_xt.commands.tokenizers import tokenizer_training
from lightning_xt.data.text.pieces import TextPart
from lightning_xt.data.tokenizers.bpe import BPE
from lightning_xt.data.tokenizers.tokenizer_file import TokenizerFile

TEXT = "the cat sat on the mat, and the dog sat on the cat.\n" * 20


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.txt").write_text(TEXT, encoding="utf-8")
    (tmp_path / "corpus" / "b.txt").write_bytes(b"\xff" + TEXT.encode())
    return tmp_path


def train(*options: str) -> int:
    return main(["tokenizer", "train", *options])


def test_a_tokenizer_is_trained(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--path", "corpus/*.txt", "--vocab_size", "270") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"270 ids: 11 sub-words, 256 bytes, <pad>, <start> and <end>; {2 * len(TEXT) + 1:,} bytes read."
    assert said[1:3] == [
        "Use it:  lightning-xt fit -c language/quickstart.yaml --data TextFiles --data.path 'corpus/*.txt' \\",
        "             --data.tokenizer BPE --data.tokenizer.file tokenizer.json",
    ]
    assert said[3:5] == ["tokenizer=tokenizer.json", "ids=270"]
    tokenizer = BPE(270, file="tokenizer.json")
    assert tokenizer.vocab_size == 270 and tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    assert TokenizerFile("tokenizer.json").encode(TEXT) == tokenizer.encode(TEXT)
    measured = 2 * len(TEXT) + 3
    tokens = len(tokenizer.encode(TEXT)) + len(tokenizer.encode("\ufffd" + TEXT))
    assert said[5] == f"bytes_per_token={measured / tokens:.6f}" and len(said) == 6


def test_json_lines_and_a_result_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [json.dumps({"text": line, "other": "zz" * 50}) for line in TEXT.splitlines()]
    (folder / "lines.jsonl").write_text("\n".join(lines), encoding="utf-8")
    options = ["--path", "lines.jsonl", "--field", "text", "--output", "my tokens.json"]
    assert train(*options, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ids"] < 300 and found["bytes"] == len(TEXT) - 20 and found["tokenizer"] == "my tokens.json"
    assert found["use"].endswith("--data.tokenizer BPE --data.tokenizer.file 'my tokens.json'")
    assert BPE(file="my tokens.json").vocab_size == found["ids"]
    assert "zz" not in json.loads((folder / "my tokens.json").read_text(encoding="utf-8"))["model"]["vocab"]
    assert train(*options) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"The text gives {found['ids']} ids, fewer than --vocab_size 8,192.\n")
    assert "--data.path lines.jsonl --data.field text \\\n" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--path", "none"], "tokenizer: --path none: no such file or folder, here or in the data folder"),
        (["--path", "x.jsonl"], "x.jsonl is JSON lines; name the field of the text, such as --field text"),
        (["--path", "corpus", "--vocab_size", "12"], "tokenizer: --vocab_size must be at least 259, not 12"),
        (
            ["--path", "corpus", "--vocab_size", "1000000000000"],
            "tokenizer: --vocab_size must be at most 16777216, not",
        ),
        (
            ["--path", "corpus", "--output", "no/x.json"],
            "--output no/x.json cannot be written (No such file or directory)",
        ),
        (
            ["--path", "corpus", "--output", "corpus"],
            "--output corpus cannot be written (Is a directory); name another",
        ),
        (["--path", "corpus", "--output", "x" * 300], "x cannot be written (File name too long); name another file"),
        (["--path", "empty"], "tokenizer: --path empty has no text to train on; give some"),
        (["--path", "corpus", "--vocabsize", "9"], "did you mean --vocab_size?"),
        ([], "tokenizer: the following arguments are required: --path"),
    ],
)
def test_mistakes_are_answered(folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str) -> None:
    (folder / "x.jsonl").write_text("{}", encoding="utf-8")
    (folder / "empty").write_text("", encoding="utf-8")
    assert train(*options) == 2
    assert said in capsys.readouterr().err
    assert not (folder / "tokenizer.json").exists()


def test_a_text_that_changes_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tokenizer_training.cut_pieces

    def change(*given: object) -> object:
        (folder / "corpus" / "b.txt").write_text("more", encoding="utf-8")
        return cut(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(tokenizer_training, "cut_pieces", change)
    assert train("--path", "corpus") == 2
    assert "--path corpus changed during reading; start again when it is complete" in capsys.readouterr().err


def test_an_output_that_becomes_unwritable_ends_in_a_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "out").mkdir()
    learn = BPE.train

    def lose(tokenizer: BPE, texts: Callable[[], Iterable[str]]) -> None:
        learn(tokenizer, texts)
        (folder / "out").rmdir()

    monkeypatch.setattr(BPE, "train", lose)
    assert train("--path", "corpus", "--vocab_size", "270", "--output", "out/x.json") == 2
    assert "tokenizer: --output out/x.json cannot be written (No such file or directory);" in capsys.readouterr().err


def test_empty_pieces_are_not_sampled(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def cut(*_: object) -> list[TextPart]:
        return [*[TextPart(False, b"")] * tokenizer_training.SAMPLED * 99, TextPart(False, TEXT.encode())]

    monkeypatch.setattr(tokenizer_training, "cut_pieces", cut)
    assert train("--path", "corpus/a.txt", "--vocab_size", "270") == 0
    assert "bytes_per_token=" in capsys.readouterr().out
