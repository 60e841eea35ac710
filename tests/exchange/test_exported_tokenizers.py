"""Tokenizers of exports: the ids of texts are those of here, special spellings included."""

from pathlib import Path
from typing import Any

import pytest
from made_tokenizers import sentence_piece
from tokenizers import Tokenizer as Library

from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.data.tokenizers.bpe import BPE
from lightning_xt.data.tokenizers.bytes import Bytes
from lightning_xt.data.tokenizers.numbers import Numbers
from lightning_xt.data.tokenizers.sentence_piece import SentencePiece
from lightning_xt.data.tokenizers.special_bytes import SpecialBytes
from lightning_xt.exchange.exported_model import ExportedModel, ExportOptions
from lightning_xt.exchange.tokenizers.exported_tokenizers import (
    compare_tokenizers,
    open_library,
    open_with_transformers,
    write_tokenizers,
)
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.seq2seq import Seq2Seq

SIZES: dict[str, Any] = {"dim": 16, "depth": 1, "attention": {"heads": 2}}


def make_bpe(size: int = 300, **options: Any) -> BPE:
    made = BPE(size, **options)
    made.train(lambda: ["ein schönes Haus, a house " * 9])
    return made


def build(**tokenizers: Tokenizer) -> ExportedModel:
    kind: Any = LanguageModel if len(tokenizers) == 1 else Seq2Seq
    sides = ("decoder",) if kind is LanguageModel else ("encoder", "decoder")
    module = kind.from_config(dict.fromkeys(sides, SIZES)).eval()
    module._trained_with = tokenizers
    return ExportedModel("runs/x", module, ExportOptions(tokens=16))


@pytest.mark.parametrize("reader", [open_library, open_with_transformers])
@pytest.mark.parametrize(
    "tokenizer",
    [Bytes(), Bytes(separator=255), SpecialBytes(), make_bpe(), make_bpe(specials="documents")],
    ids=["bytes", "separated", "special_bytes", "bpe", "documents"],
)
def test_ids_are_the_same(tokenizer: Tokenizer, reader: Any, tmp_path: Path) -> None:
    model = build(text=tokenizer)
    write_tokenizers(model, tmp_path)
    (found,) = compare_tokenizers(model, tmp_path, reader)
    assert found.startswith("tokenizer: t") and found.endswith(" gives the same ids")


@pytest.mark.parametrize("apart", [False, True])
def test_sources_end_with_the_end_token(apart: bool, tmp_path: Path) -> None:
    model = build(source=SpecialBytes(), target=SpecialBytes())
    write_tokenizers(model, tmp_path, apart=apart)
    assert len(compare_tokenizers(model, tmp_path, open_library, apart=apart)) == (2 if apart else 1)
    folder = tmp_path / "source" if apart else tmp_path
    assert Library.from_file(str(folder / "tokenizer.json")).encode("a").ids == [ord("a") + 3, 2]


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    model = build(source=make_bpe(), target=make_bpe(310))
    write_tokenizers(model, tmp_path)
    found = compare_tokenizers(model, tmp_path, open_library)
    assert [each.partition(":")[0] for each in found] == ["source tokenizer", "target tokenizer"]
    (tmp_path / "tokenizer.json").write_bytes((tmp_path / "target" / "tokenizer.json").read_bytes())
    with pytest.raises(ValueError, match=r"tokenizers .* encodes .* with other ids than its source tokenizer"):
        compare_tokenizers(model, tmp_path, open_library)


def test_a_special_token_in_a_text_is_text(tmp_path: Path) -> None:
    model = build(text=SpecialBytes())
    write_tokenizers(model, tmp_path)

    def read_specials(folder: Path) -> Any:
        library = Library.from_file(str(folder / "tokenizer.json"))
        return "another", lambda text: library.encode(text).ids

    with pytest.raises(ValueError, match="another encodes 'a <s> </s> <pad> b' with other ids than its tokenizer"):
        compare_tokenizers(model, tmp_path, read_specials)


def test_a_missing_tokenizer_is_said(tmp_path: Path) -> None:
    model = build(text=Numbers(31))
    write_tokenizers(model, tmp_path)
    sentence = "no tokenizer: Numbers has no file for other libraries, so give ids there"
    assert compare_tokenizers(model, tmp_path, open_library) == [sentence]


def test_a_model_of_sentencepiece_is_not_checked(tmp_path: Path) -> None:
    file = tmp_path / "some.model"
    file.write_bytes(sentence_piece("unigram"))
    model = build(text=SentencePiece(str(file)))
    write_tokenizers(model, tmp_path)
    (found,) = compare_tokenizers(model, tmp_path, open_library)
    assert found.startswith("tokenizer: tokenizer.model is not checked; encode with the library of SentencePiece")
    assert (tmp_path / "tokenizer.model").read_bytes() == file.read_bytes()
