"""Files that are not a tokenizer, or not one of lightning-xt."""

import json
from collections.abc import Iterator
from typing import Any

from hostile.case import Case
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers, trainers

FIT = ("fit", "-c", "pairs.yaml", "--data.tokenizer.file", "in.json")

FIT_TEXT = ("fit", "-c", "tiny.yaml", "--data.tokenizer", "TokenizerFile", "--data.tokenizer.file", "in.json")


def cases() -> Iterator[Case]:
    """Yield all cases of tokenizer files."""
    good = _train_library()
    text = json.dumps(good)
    no_bytes = "is not a byte-level BPE with all 256 bytes"
    none = "is not a tokenizer.json of the tokenizers library"
    specials = "its ids 0, 1 and 2 are not the special tokens"
    vocab = good["model"]["vocab"]
    for name, content, says in (
        ("nothing", "", none),
        ("a text", "a tokenizer\n", none),
        ("truncated", text[: len(text) // 2], none),
        ("no UTF-8", b"\xff" + text.encode(), none),
        ("a list", "[1, 2]", none),
        ("null", "null", none),
        ("an empty object", "{}", none),
        ("another object", '{"vocab": {"a": 0}}', none),
        ("deep brackets", "[" * 100_000, none),
        ("not a number", text.replace('"version": "1.0"', '"version": NaN'), none),
        ("another version", text.replace('"version": "1.0"', '"version": "9.0"'), none),
        ("no model", _remove_part(good, "model"), none),
        ("another kind of model", _replace_part(good, "model", {"type": "Nope"}), none),
        ("a model of words", _replace_part(good, "model", _make_word_level()), no_bytes),
        ("no decoder", _replace_part(good, "decoder", None), no_bytes),
        ("another decoder", _replace_part(good, "decoder", {"type": "Fuse"}), no_bytes),
        ("another pre-tokenizer", _replace_part(good, "pre_tokenizer", {"type": "Whitespace"}), "pre-tokenizer"),
        ("no pre-tokenizer", _replace_part(good, "pre_tokenizer", None), "pre-tokenizer"),
        ("a normalizer", _replace_part(good, "normalizer", {"type": "Lowercase"}), "normalizer"),
        (
            "bytes are missing",
            _replace_vocab(good, {name: n for name, n in vocab.items() if name not in "abc"}),
            no_bytes,
        ),
        ("no vocabulary", _replace_vocab(good, {}), no_bytes),
        ("an id below zero", _replace_vocab(good, {**vocab, "a": -1}), none),
        ("an id that is a text", _replace_vocab(good, {**vocab, "a": "one"}), none),
        ("an id far away", _replace_vocab(good, {**vocab, "zz": 2**31}), "2147483649 ids"),
        ("two of one id", _replace_vocab(good, {**vocab, "a": vocab["b"]}), "twice"),
        ("no special tokens", _replace_part(good, "added_tokens", []), specials),
        ("special tokens elsewhere", _replace_part(good, "added_tokens", _make_specials(5)), ""),
        ("special tokens of other names", text.replace("<start>", "<begin>"), specials),
        (
            "special tokens that are not special",
            _replace_part(good, "added_tokens", _make_specials(0, special=False)),
            specials,
        ),
        (
            "a merge of what there is not",
            _replace_part(good, "model", {**good["model"], "merges": [["qq", "zz"]]}),
            none,
        ),
    ):
        yield Case(
            name=f"tokenizer: {name}",
            command=FIT,
            says=["--data.tokenizer.file in.json", says],
            files={"in.json": content},
        )
        if says in (none, "2147483649 ids", "twice"):
            yield Case(
                name=f"tokenizer of a text: {name}",
                command=FIT_TEXT,
                says=["--data.tokenizer.file in.json", says],
                files={"in.json": content},
            )
    for name, damaged in (
        ("nothing", ""),
        ("a text", "a tokenizer\n"),
        ("a tokenizer.json", text),
        ("zeros", b"\0" * 999),
    ):
        yield Case(
            name=f"tokenizer: {name} for a model of SentencePiece",
            command=[*FIT_TEXT[:4], "SentencePiece", *FIT_TEXT[5:]],
            says=["--data.tokenizer.file in.json is not a model of SentencePiece"],
            files={"in.json": damaged},
        )
    yield Case(
        name="tokenizer of a text: no token ends a document",
        command=[*FIT_TEXT, "--data.documents", "separator"],
        says=["--data.tokenizer.file in.json has no special token of a usual name that could separate documents"],
        files={"in.json": _replace_part(good, "added_tokens", [])},
    )
    for size in ("0", "-5", "258", "1e400", "many", "2.5"):
        yield Case(
            name=f"tokenizer: a vocabulary of {size}",
            command=["fit", "-c", "pairs.yaml", "--data.tokenizer.vocab_size", size],
            says=["--data.tokenizer.vocab_size" if size != "2.5" else "vocab_size", size if size != "1e400" else ""],
        )
    for given in ("{}", "[1]"):
        yield Case(
            name=f"tokenizer: {given} for a model",
            command=[*FIT, "--data.tokenizer.model", given],
            says=[f"--data.tokenizer.model: expected str, not '{given}'"],
            files={"in.json": text},
        )
    yield Case(
        name="tokenizer: a file and a model",
        command=[*FIT, "--data.tokenizer.model", "learned"],
        says=["--data.tokenizer.file in.json and --data.tokenizer.model are two tokenizers"],
        files={"in.json": text},
    )
    yield Case(
        name="tokenizer: one without special ids",
        command=["fit", "-c", "pairs.yaml", "--data.tokenizer", "Bytes"],
        says=["--data.tokenizer Bytes has no pad, start and end token; set --data.tokenizer SpecialBytes or BPE"],
    )


def _train_library() -> dict[str, Any]:
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<pad>", "<start>", "<end>"]
    trainer = trainers.BpeTrainer(
        vocab_size=270, show_progress=False, special_tokens=special, initial_alphabet=alphabet
    )
    library.train_from_iterator(["a red dog runs and a red man sits"] * 9, trainer)
    return dict(json.loads(library.to_str()))


def _replace_part(described: dict[str, Any], part: str, value: Any) -> str:
    return json.dumps({**described, part: value})


def _remove_part(described: dict[str, Any], part: str) -> str:
    return json.dumps({name: value for name, value in described.items() if name != part})


def _replace_vocab(described: dict[str, Any], vocab: dict[str, Any]) -> str:
    return _replace_part(described, "model", {**described["model"], "vocab": vocab, "merges": []})


def _make_word_level() -> dict[str, Any]:
    return {"type": "WordLevel", "vocab": {"<pad>": 0, "<start>": 1, "<end>": 2}, "unk_token": "<pad>"}


def _make_specials(first: int, *, special: bool = True) -> list[dict[str, Any]]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    names = ("<pad>", "<start>", "<end>")
    return [{"id": first + n, "content": name, "special": special, **flags} for n, name in enumerate(names)]
