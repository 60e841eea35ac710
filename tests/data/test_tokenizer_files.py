"""Tokenizers from files that others wrote: `TokenizerFile` and `SentencePiece`."""

import base64
import json
import pickle
import random
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import sentencepiece
from made_tokenizers import MADE, TEXTS, content, library, sentence_piece

from lightning_xt.data.pairs.parallel_text import ParallelText
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.data.tokenizers.bpe import BPE
from lightning_xt.data.tokenizers.difference import describe_difference
from lightning_xt.data.tokenizers.sentence_piece import SentencePiece
from lightning_xt.data.tokenizers.tokenizer_file import TokenizerFile
from lightning_xt.training.callbacks.run_folder import RunFolder
from lightning_xt.training.from_config import build_tokenizer
from lightning_xt.training.trained_tokenizers import write_tokenizers

TYPED = "<|endoftext|> </s> <eos> [SEP]x <|end_of_text|> <s><pad>"
ODD = [*TEXTS[:4], " a  b ", TYPED, "<|end_of_text|>", "e\u0301\u65e5\U0001f642 z\x00", "", "\n\n"]
SPECIAL = {
    "gpt2": (None, 290, 290),
    "llama3": (292, 291, 295),
    "llama2": (None, 1, 2),
    "t5": (0, 1, 1),
    "bert": (0, 2, 3),
    "gpt1": (1, 2, 2),
    "words": (1, 2, 2),
}


def models() -> dict[str, Tokenizer]:
    made: dict[str, Tokenizer] = {kind: TokenizerFile(model=content(kind)) for kind in MADE}
    for kind in ("bpe", "unigram"):
        made[f"sentencepiece {kind}"] = SentencePiece(model=base64.b64encode(sentence_piece(kind)).decode())
    return made


MODELS = models()


@pytest.fixture(params=MODELS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return MODELS[request.param]


@pytest.mark.parametrize("kind", MADE)
def test_ids_and_texts_are_those_of_the_library(kind: str) -> None:
    ours, theirs = MODELS[kind], library(kind)
    control = {ours.pad, ours.start, ours.end}
    for text in ODD:
        ids, known = ours.encode(text), theirs.encode(text, add_special_tokens=False).ids
        if control.isdisjoint(known):
            assert ids == known
        hidden = theirs.token_to_id("[UNK]" if kind == "bert" else "<unk>")
        if hidden not in ids:
            assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False)
    assert ours.vocab_size == max(theirs.get_vocab().values()) + 1
    assert (ours.pad, ours.start, ours.end) == SPECIAL[kind]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_ids_and_texts_are_those_of_sentencepiece(kind: str) -> None:
    ours, theirs = MODELS[f"sentencepiece {kind}"], sentencepiece.SentencePieceProcessor()
    theirs.load_from_serialized_proto(sentence_piece(kind))
    for text in ODD:
        ids = theirs.encode(text)
        assert ours.encode(text) == ids
        if theirs.unk_id() not in ids:
            assert ours.decode(ids) == theirs.decode(ids)
    assert ours.vocab_size == theirs.get_piece_size()
    assert (ours.pad, ours.start, ours.end) == (3 if kind == "unigram" else None, 1, 2)
    assert set(ours.unused) == ({1, 3, 4} if kind == "unigram" else {1})


def test_typed_special_tokens_stay_text(tokenizer: Tokenizer) -> None:
    control = {*tokenizer.unused, tokenizer.end}
    for text in ODD:
        ids = tokenizer.encode(text)
        assert control.isdisjoint(ids)
        assert [tokenizer.encode(text)] * 2 == tokenizer.encode_batch([text] * 2)
        assert [each.tolist() for each in tokenizer.encode_arrays([text])] == [ids]
        if tokenizer.describe_changes() is None:
            assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("seed", range(3))
def test_pieces_are_certain_and_together_the_text(tokenizer: Tokenizer, seed: int) -> None:
    draw = random.Random(seed)
    ids = [each for text in ODD for each in tokenizer.encode(text)] + [*range(tokenizer.vocab_size)]
    draw.shuffle(ids)
    stream, text, shown = tokenizer.stream(), tokenizer.decode(ids), ""
    for each in ids:
        shown += stream.push(each)
        assert text.startswith(shown)
    assert shown + stream.finish() == text
    assert tokenizer.decode([]) == "" == tokenizer.stream().finish()


def test_spelled_tokens_are_the_pieces_of_a_text(tokenizer: Tokenizer) -> None:
    first, *ids = tokenizer.encode("a cat sat on the mat and the cat")
    text = tokenizer.decode([first, *ids])
    pieces = [tokenizer.spell(each) for each in ids]
    # Some tokenizers write a space after a word only if another follows.
    assert text == (tokenizer.spell(first) + "".join(pieces)).strip() and len(ids) > 2
    assert tokenizer.unused == [] or tokenizer.spell(tokenizer.unused[0]) == ""


@pytest.mark.parametrize("kind", ["gpt2", "t5", "bert"])
def test_files_of_older_versions_do_not_name_the_type_of_their_model(kind: str) -> None:
    described = json.loads(content(kind))
    del described["model"]["type"]
    made = TokenizerFile(model=json.dumps(described))
    assert made.init_args == MODELS[kind].init_args and made.describe_changes() == MODELS[kind].describe_changes()
    assert [made.encode(text) for text in ODD] == [MODELS[kind].encode(text) for text in ODD]


def test_a_panic_of_the_library_is_an_error_of_the_file() -> None:
    # The library panics over a text, or while it reads the file.
    pieces = {"type": "FixedLength", "length": 0}
    levels = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    cut = {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [pieces, levels]}}
    empty = {"normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": "x"}}
    charsmap = {"normalizer": {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(b"xxxx").decode()}}
    trained = BPE(300)
    trained.train(lambda: TEXTS)
    for text, make in ((content("gpt2"), TokenizerFile), (str(trained.trained_state), BPE)):
        for change, said in ((cut, "not encode every text"), (empty, "not encode every text|change"), (charsmap, " ")):
            with pytest.raises(ValueError, match=said):
                make(model=json.dumps({**json.loads(text), **change}))
    with pytest.raises(
        ValueError, match=r"^--data.tokenizer.model does not encode every text \(.*; use one with a tok"
    ):
        TokenizerFile(model=json.dumps({**json.loads(content("gpt2")), **cut}))


def test_what_is_not_kept_is_named() -> None:
    said = {kind: made.describe_changes() for kind, made in MODELS.items()}
    assert said["gpt2"] is None and said["llama3"] is None
    assert said["llama2"] == "it does not keep the character \u2581" == said["sentencepiece bpe"]
    assert said["bert"] is not None and said["bert"].startswith(
        "it does not keep upper case, spaces at the beginning, "
    )
    assert said["words"] == "it does not keep characters for which it has no token"
    lower = json.loads(content("gpt2"))
    lower["normalizer"] = {"type": "Lowercase"}
    assert str(TokenizerFile(model=json.dumps(lower)).describe_changes()).startswith("it does not keep upper case and")
    lower["normalizer"] = {"type": "Replace", "pattern": {"String": "qx"}, "content": "q"}
    said_now = TokenizerFile(model=json.dumps(lower)).describe_changes()
    assert said_now == "it may change rare texts: its Replace changes or removes text"
    del lower["model"]["vocab"]["{"]
    without = TokenizerFile(model=json.dumps({**lower, "normalizer": None, "added_tokens": []}))
    assert without.describe_changes() == "it does not keep rare characters"
    assert BPE().describe_changes() is None


def test_a_checkpoint_holds_the_content(tokenizer: Tokenizer, tmp_path: Path) -> None:
    for each in (tokenizer, tokenizer.for_text(True), tokenizer.for_text(False)):
        kept = {"class_path": f"lightning_xt.{type(each).__name__}", "init_args": each.init_args}
        again = build_tokenizer(json.loads(json.dumps(kept)))
        assert again.init_args == each.init_args and describe_difference(again, each) is None
        assert (again.pad, again.start, again.end) == (each.pad, each.start, each.end)
        assert again.encode(TYPED) == each.encode(TYPED)
        assert pickle.loads(pickle.dumps(each)).encode(TYPED) == each.encode(TYPED)
    run = RunFolder(tmp_path, tmp_path, Mock(), loggers=())
    trainer: Any = SimpleNamespace(callbacks=[run], is_global_zero=True)
    write_tokenizers(trainer, {"text": tokenizer})
    (file,) = tmp_path.iterdir()
    assert file.name == ("text_tokenizer.model" if isinstance(tokenizer, SentencePiece) else "text_tokenizer.json")
    assert type(tokenizer)(str(file)).init_args == tokenizer.init_args
    other = type(tokenizer)(str(file), end=None)
    other.restore(str(tokenizer.trained_state))
    assert other.encode(TYPED) == tokenizer.encode(TYPED)
    other.train(lambda: pytest.fail("a given tokenizer learns nothing"))


def test_a_long_text_has_one_special_id_or_none(tokenizer: Tokenizer) -> None:
    separated, joined = tokenizer.for_text(True), tokenizer.for_text(False)
    assert (separated.pad, separated.start, separated.end) == (None, tokenizer.end, tokenizer.end)
    assert (joined.pad, joined.start, joined.end) == (None, None, None)
    assert set(joined.unused) == {*separated.unused, tokenizer.end}
    assert separated.encode_prompt("a")[0] == tokenizer.end


def test_gaps_and_special_tokens_are_not_generated() -> None:
    # The ids 290, 293 and 294 stand for nothing; no text has those of the start and pad tokens.
    assert MODELS["llama3"].unused == [290, 291, 292, 293, 294]
    # What is unknown is a part of texts.
    assert MODELS["bert"].unused == [0, 2, 4]


def test_special_tokens_are_chosen_by_name() -> None:
    chosen = TokenizerFile(model=content("bert"), pad="[MASK]", start="[SEP]", end="[CLS]")
    assert (chosen.pad, chosen.start, chosen.end) == (4, 3, 2) and chosen.for_text(True).start == 2
    with pytest.raises(ValueError, match=r"--data.tokenizer.end the is not a special token of --data.tokenizer.model"):
        TokenizerFile(model=content("bert"), end="the")
    with pytest.raises(ValueError, match=r"which has \[PAD\], \[CLS\], \[SEP\], \[MASK\]; name one$"):
        TokenizerFile(model=content("bert"), pad="[UNK]")
    for named, token, other in (
        ({"pad": "[SEP]"}, "SEP", "end"), ({"start": "[PAD]"}, "PAD", "start"), ({"end": "[PAD]"}, "PAD", "end"),
    ):  # fmt: skip
        message = rf"^\[{token}\] of .* would be both the pad and the {other} token, .*tokenizer.pad or .*r.{other}$"
        with pytest.raises(ValueError, match=message):
            TokenizerFile(model=content("bert"), **named)
    none = json.loads(content("gpt2"))
    none["added_tokens"] = [{**none["added_tokens"][0], "content": f"<{n}>", "id": 290 + n} for n in range(11)]
    plain = TokenizerFile(model=json.dumps(none))
    message = (
        r"no special token of a usual name that could separate documents, but <0>, .*<7> and 3 more; name one with"
    )
    with pytest.raises(ValueError, match=message):
        plain.for_text(True)
    assert plain.for_text(False).unused == [*range(290, 301)]


def test_pairs_need_three_special_tokens(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    for kind, fits in (("bert", True), ("gpt2", False)):
        file.write_text(content(kind), encoding="utf-8")
        if fits:
            data = ParallelText("x.en", target_path="x.de", tokenizer=lambda: TokenizerFile(str(file)))
            assert data.vocab == {"source": 67, "target": 67, "pad": 0, "start": 2, "end": 3, "separator": None}
        else:
            with pytest.raises(
                ValueError, match=r"TokenizerFile has no pad, start and end token; .*--data.tokenizer.pad"
            ):
                ParallelText("x.en", target_path="x.de", tokenizer=lambda: TokenizerFile(str(file)))


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    def change(kind: str, **parts: object) -> str:
        described = json.loads(content(kind))
        model = {**described["model"], **parts.pop("model", {})}  # type: ignore[dict-item]
        return json.dumps({**described, "model": model, **parts})

    for text, said in (
        ("{", r"^--data.tokenizer.model is not a tokenizer.json of the tokenizers library \("),
        (change("gpt2", model={"dropout": 0.5}), "model has dropout 0.5, which encodes a text differently each time"),
        (change("gpt1", model={"continuing_subword_prefix": "##"}), "has a continuing_subword_prefix, which is not"),
        (change("gpt2", decoder={"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": True}),
         r"has the decoder CTC, which does not decode a token after the other: .* instead of .*; use a token"),
        (change("words", model={"unk_token": "none"}), r"does not encode every text \(.*\); use one with a token"),
        (change("words", model={"vocab": {}}, added_tokens=[]), "has no tokens; train it on texts first"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            TokenizerFile(model=text)
    for kind in (TokenizerFile, SentencePiece):
        with pytest.raises(ValueError, match=rf"^{kind.__name__} needs --data.tokenizer.file, a "):
            kind()
        with pytest.raises(
            ValueError, match=r"^--data.tokenizer.file x and --data.tokenizer.model are two tokenizers;"
        ):
            kind("x", model="y")
        with pytest.raises(FileNotFoundError, match=r"^--data.tokenizer.file no: no such file; give a "):
            kind("no")
    file = tmp_path / "x.model"
    for damaged in (b"", b"xx", sentence_piece("bpe")[:50]):
        file.write_bytes(damaged)
        with pytest.raises(
            ValueError, match=rf"^--data.tokenizer.file {file} is not a model of SentencePiece \(.*; give"
        ):
            SentencePiece(str(file))
    with pytest.raises(ValueError, match=r"^--data.tokenizer.model is not Base64 \(.*; keep it as in the checkpoint$"):
        SentencePiece(model="?")


def test_the_library_of_sentencepiece_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(
        ValueError, match=r'the library sentencepiece; run pip install "lightning-xt\[sentencepiece\]"$'
    ):
        SentencePiece(model="")


def test_one_character_is_text_too() -> None:
    described = json.loads(content("gpt2"))
    described["added_tokens"].insert(0, {**described["added_tokens"][0], "id": 0, "content": "!"})
    made = TokenizerFile(model=json.dumps(described))
    assert made.decode(made.encode("no!")) == "no!" and 0 not in made.unused
