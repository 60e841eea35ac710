"""Tokenizers of folders of transformers: what is read, said and refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Library
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from lightning_xt.data.tokenizers.numbers import Numbers
from lightning_xt.exchange.tokenizers.imported_tokenizer import ImportedTokenizer, read_tokenizer
from lightning_xt.system.messages import UserError

IDS = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 2}


def read(folder: Path, config: dict[str, Any], size: int = 61, count: int | None = 61) -> ImportedTokenizer:
    """Read a folder with a tokenizer of `count` words, of which 3 is missing."""
    if count is not None:
        words = {"<pad>": 0, "</s>": 1, "<s>": 2, **{f"w{number}": number for number in range(4, count)}}
        library = Library(WordLevel(words, unk_token="w4"))
        library.pre_tokenizer = Whitespace()
        library.add_special_tokens(["<pad>", "</s>", "<s>"])
        library.save(str(folder / "tokenizer.json"))
    return read_tokenizer(folder, config, size)


@pytest.mark.parametrize("count", [61, None], ids=["words", "numbers"])
@pytest.mark.parametrize(
    ("change", "ids", "remarks"),
    [
        ({}, (0, 2, 1), []),
        ({"pad_token_id": -1}, (None, 2, 1), ["pad_token_id of {} is -1, which is not an id from 0 to 60"]),
        (
            {"pad_token_id": 10**30},
            (None, 2, 1),
            [f"pad_token_id of {{}} is {10**30}, which is not an id from 0 to 60"],
        ),
        ({"eos_token_id": "x"}, (0, 2, None), ["eos_token_id of {} is 'x', which is not an id from 0 to 60"]),
        ({"eos_token_id": [1, 5]}, (0, 2, 1), ["eos_token_id of {} is [1, 5]; only the first is the end token here"]),
        ({"pad_token_id": 1}, (None, 2, 1), []),
    ],
)
def test_special_ids_are_read_and_others_are_named(
    change: dict[str, Any], ids: tuple[int | None, ...], remarks: list[str], count: int | None, tmp_path: Path
) -> None:
    found = read(tmp_path, IDS | change, count=count)
    assert (found.tokenizer.pad, found.tokenizer.start, found.tokenizer.end) == ids
    said = found.remarks if count is not None else found.remarks[:-1]
    assert len(said) == len(remarks)
    assert all(said.startswith(each.format(tmp_path)) for said, each in zip(said, remarks, strict=True))


def test_an_end_token_that_the_tokenizer_lacks_is_named(tmp_path: Path) -> None:
    found = read(tmp_path, IDS | {"eos_token_id": 3})
    assert found.tokenizer.end is None
    file = tmp_path / "tokenizer.json"
    assert found.remarks == [f"{file} has no token 3, the end token of the config; there is none here"]


def test_padding_of_tables_is_named_and_larger_gaps_are_refused(tmp_path: Path) -> None:
    found = read(tmp_path, IDS, size=64)
    assert found.tokenizer.vocab_size == 64
    file = tmp_path / "tokenizer.json"
    assert found.remarks == [f"{file} has 61 ids, but the weights have 64; the others stand for nothing"]
    with pytest.raises(UserError, match=r"has 100 ids, but the weights have 50304: it is the tokenizer of another mod"):
        read(tmp_path, IDS, size=50_304, count=100)
    with pytest.raises(UserError, match=r"has 61 ids, but the weights have 64, and 62 is the end token of the config"):
        read(tmp_path, IDS | {"eos_token_id": 62}, size=64)
    # A padding that the tokenizer lacks is not needed.
    assert read(tmp_path, IDS | {"pad_token_id": 62}, size=64).tokenizer.pad is None


@pytest.mark.parametrize("config", [{}, IDS], ids=["without_start", "with_start"])
def test_a_damaged_tokenizer_is_refused(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "model": {"type"')
    with pytest.raises(UserError, match=r"tokenizer.json is not a tokenizer.json of the tokenizers library"):
        read_tokenizer(tmp_path, config, 61)


def test_a_tokenizer_that_fails_on_a_text_is_refused(tmp_path: Path) -> None:
    library = Library(WordLevel({"<pad>": 0, "</s>": 1}, unk_token="none"))
    library.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match=r"tokenizer.json: it does not encode every text \(.*; use one with a token"):
        read_tokenizer(tmp_path, {}, 2)


@pytest.mark.parametrize("name", ["generation_config.json", "tokenizer_config.json"])
def test_malformed_settings_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("[3")
    with pytest.raises(UserError, match=f"{name} cannot be read"):
        read(tmp_path, {})


def test_a_chat_template_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    sentence = f"{tmp_path} has a chat template, which is not read; special tokens that it spells are text here"
    assert read(tmp_path, IDS).remarks == [sentence]


def test_files_of_tokenizers_that_are_not_read_are_named(tmp_path: Path) -> None:
    for name in ("source.spm", "vocab.json"):
        (tmp_path / name).write_text("{}")
    found = read(tmp_path, IDS, count=None)
    assert isinstance(found.tokenizer, Numbers)
    files = "source.spm, vocab.json are not read"
    sentence = f"{tmp_path} has no tokenizer.json, and {files}, so texts are ids as numbers, such as 5 3 17"
    assert found.remarks == [sentence]


def test_an_end_token_that_texts_contain_is_named_and_not_used(tmp_path: Path) -> None:
    read(tmp_path, IDS)
    file = tmp_path / "tokenizer.json"
    file.write_text(file.read_text().replace('"w5"', '"x"'))
    found = read(tmp_path, IDS | {"eos_token_id": 5}, count=None)
    assert found.tokenizer.end is None
    assert len(found.remarks) == 1
    assert found.remarks[0].startswith(f"eos_token_id is 5, which {file} has as the ordinary token 'x'; it is not used")
