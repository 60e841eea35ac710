"""Tokenizers: encoding and decoding, whole and in pieces, and training."""

import copy
import json
import os
import pickle
import random
import subprocess
import sys

import numpy as np
import pytest
import tokenizers

from lightning_xt.data.tokenizers.bpe import BPE
from lightning_xt.data.tokenizers.bytes import Bytes
from lightning_xt.data.tokenizers.difference import describe_difference
from lightning_xt.data.tokenizers.numbers import Numbers
from lightning_xt.data.tokenizers.sentinel_bytes import SentinelBytes
from lightning_xt.data.tokenizers.special_bytes import SpecialBytes

TEXT = "a\u00e9\u20ac\U0001f600\r\n\x00z"  # characters of 1, 2, 3 and 4 bytes

LESSONS = [
    "the cat sat on the mat",
    "the dog sat on the cat's mat",
    "\u00fcber den H\u00fcgeln",
    "<pad><start><end>",
] * 3

ODD = [
    "",
    " ",
    "  the cat  ",
    "\n\nthe\tcat\r\n",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 caf\u00e9 e\u0301 \u4e2d\u6587",
    "\u2028\u0085\x00\ufeff\ufffd",
    "<pad> <start><end>",
]


def train(vocab_size=290):
    tokenizer = BPE(vocab_size)
    tokenizer.train(lambda: iter(LESSONS))
    return tokenizer


LEARNT = train()


def stream(tokenizer, ids):
    stream = tokenizer.stream()
    return [stream.push(token) for token in ids], stream.finish()


def test_ids_are_the_utf8_bytes():
    tokenizer = Bytes()
    assert tokenizer.vocab_size == 256
    assert (tokenizer.pad, tokenizer.start, tokenizer.end) == (None, None, None)
    assert tokenizer.encode("A\u00e9") == [65, 0xC3, 0xA9]
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT


def test_bytes_that_are_not_text():
    assert Bytes().decode([65, 0xFF, 66]) == "A\ufffdB"
    assert Bytes().encode(bytes([65, 0xFF]).decode("utf-8", errors="surrogateescape")) == [65, 0xFF]


def test_a_character_comes_with_its_last_byte():
    pieces, rest = stream(Bytes(), Bytes().encode("\u20aca"))
    assert pieces == ["", "", "\u20ac", "a"] and rest == ""
    pieces, rest = stream(Bytes(), Bytes().encode("\u20ac")[:2])
    assert pieces == ["", ""] and rest == "\ufffd"


@pytest.mark.parametrize("tokenizer", [Bytes(), SpecialBytes(), LEARNT], ids=["Bytes", "SpecialBytes", "BPE"])
@pytest.mark.parametrize("seed", range(20))
def test_pieces_add_up_to_the_whole(tokenizer, seed):
    draw = random.Random(seed)
    ids = tokenizer.encode(TEXT * 2) + [draw.randrange(tokenizer.vocab_size) for _ in range(40)]
    draw.shuffle(ids)
    pieces, rest = stream(tokenizer, ids)
    assert "".join(pieces) + rest == tokenizer.decode(ids)


@pytest.mark.parametrize("tokenizer", [Bytes(), SpecialBytes(), LEARNT], ids=["Bytes", "SpecialBytes", "BPE"])
@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_a_text_comes_back(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not {tokenizer.pad, tokenizer.start, tokenizer.end}.intersection(ids)
    assert all(0 <= token < tokenizer.vocab_size for token in ids)
    pieces, rest = stream(tokenizer, ids)
    assert "".join(pieces) + rest == text
    assert tokenizer.encode_batch([text, "x"]) == [ids, tokenizer.encode("x")]


@pytest.mark.parametrize("tokenizer", [Bytes(), SpecialBytes(), LEARNT], ids=["Bytes", "SpecialBytes", "BPE"])
def test_many_texts_become_arrays(tokenizer):
    found = tokenizer.encode_arrays([*ODD, "a\udcffb"])
    assert [each.tolist() for each in found] == tokenizer.encode_batch([*ODD, "a\udcffb"])
    assert {each.dtype for each in found} == {np.dtype(np.uint32)} and tokenizer.encode_arrays([]) == []


def test_bytes_after_three_special_ids():
    tokenizer = SpecialBytes()
    assert tokenizer.vocab_size == 259
    assert (tokenizer.pad, tokenizer.start, tokenizer.end) == (0, 1, 2)
    assert tokenizer.encode("A\u00e9") == [68, 0xC3 + 3, 0xA9 + 3]
    assert tokenizer.encode_prompt("A") == [1, 68]
    assert tokenizer.decode([1, 68, 0xFF + 3, 69, 2, 0, 0]) == "A\ufffdB"
    assert tokenizer.encode("A\udcff") == [68, 0xFF + 3]
    pieces, rest = stream(tokenizer, [1, *tokenizer.encode("\u20ac"), 2, 68])
    assert pieces == ["", "", "", "\u20ac", "", "A"] and rest == ""
    assert SpecialBytes(**tokenizer.init_args).vocab_size == 259


def test_tokenizers_that_have_nothing_to_learn():
    for tokenizer in (Bytes(), SpecialBytes(), Numbers(9)):
        tokenizer.train(lambda: pytest.fail("the texts were opened"))


def test_numbers():
    tokenizer = Numbers(20)
    assert tokenizer.vocab_size == 20
    assert (tokenizer.pad, tokenizer.start, tokenizer.end) == (0, 1, None)
    assert tokenizer.encode(" 5 3\t017\n") == [5, 3, 17]
    assert tokenizer.encode("") == []
    assert tokenizer.encode_prompt("5") == [1, 5]
    assert tokenizer.decode([1, 5, 3, 17, 0]) == "5 3 17"
    pieces, rest = stream(tokenizer, [1, 5, 0, 3, 17])
    assert pieces == ["", "5", "", " 3", " 17"] and rest == ""
    ended = Numbers(20, pad=None, start=None, end=2)
    assert ended.decode([0, 1, 2, 3]) == "0 1 3"
    assert ended.init_args == {"vocab_size": 20, "pad": None, "start": None, "end": 2}
    assert Numbers(**ended.init_args).end == 2


@pytest.mark.parametrize("word", ["x", "20", "-1", "+1", "1.0", "1_0", "\u0663", "\u00b2", "9" * 5000])
def test_words_that_are_not_ids(word):
    rule = r"is not one of the 20 ids; write numbers from 0 to 19, separated by spaces, such as '5 3 17'$"
    with pytest.raises(ValueError, match=rule) as caught:
        Numbers(20).encode(f"5 {word} 3")
    assert str(caught.value).startswith(ascii(word)[:41].rstrip("'")) and len(str(caught.value)) < 160


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"vocab_size": 1}, "1 with pad 0, start 1: special ids must be different numbers from 0 to 0"),
        ({"vocab_size": 5, "end": 1}, "5 with pad 0, start 1, end 1: special ids must be different"),
        ({"vocab_size": 5, "pad": -1, "start": None}, "5 with pad -1: special ids must be different"),
    ],
)
def test_special_ids_that_cannot_be(options, shown):
    with pytest.raises(
        ValueError, match=rf"^--data.tokenizer.vocab_size {shown}.*change them or raise --data.tokenizer"
    ):
        Numbers(**options)


def test_pieces_are_learned():
    assert (LEARNT.pad, LEARNT.start, LEARNT.end) == (0, 1, 2)
    assert LEARNT.vocab_size == 290
    assert len(LEARNT.encode("the cat sat")) < len("the cat sat")
    assert LEARNT.decode([1, *LEARNT.encode("the"), 2, 0]) == "the"
    # The spelling of a special id is text, in training too.
    assert LEARNT.decode(LEARNT.encode("<pad>")) == "<pad>"
    small = train(vocab_size=259)
    assert small.encode("the \u20ac") != LEARNT.encode("the \u20ac") and len(small.encode("the \u20ac")) == 7


def test_ids_that_nothing_was_learned_for():
    large = train(vocab_size=5000)
    assert large.vocab_size == 5000
    assert large.decode([*large.encode("the"), 4999]) == "the"
    assert stream(large, [4999]) == ([""], "")


def test_pieces_come_in_whole_characters():
    ids = LEARNT.encode("\u20acx")
    pieces, rest = stream(LEARNT, ids)
    assert pieces == ["", "", "\u20ac", "x"] and rest == ""
    pieces, rest = stream(LEARNT, ids[:2])
    assert pieces == ["", ""] and rest == "\ufffd"


def test_bytes_on_the_command_line_that_are_not_text():
    assert LEARNT.decode(LEARNT.encode("a\udcffb")) == "a\ufffdb"
    assert LEARNT.encode_batch(["a\udcffb"]) == [LEARNT.encode("a\udcffb")]


def test_what_was_learned_is_kept():
    assert LEARNT.init_args.keys() == {"vocab_size", "model", "specials"}
    assert BPE(290).init_args == {"vocab_size": 290, "model": None, "specials": "pairs"}
    for again in (BPE(**LEARNT.init_args), pickle.loads(pickle.dumps(LEARNT))):
        assert again.init_args == LEARNT.init_args
        assert again.vocab_size == 290
        for text in [*LESSONS, *ODD]:
            assert again.encode(text) == LEARNT.encode(text)
        again.train(lambda: pytest.fail("a given tokenizer learns nothing"))


def test_before_training():
    tokenizer = BPE()
    assert tokenizer.vocab_size == 8000
    for use in (lambda: tokenizer.encode("a"), lambda: tokenizer.encode_batch(["a"]), lambda: tokenizer.decode([9])):
        with pytest.raises(ValueError, match=r"^the BPE tokenizer is not trained; train it on texts first, or"):
            use()


def test_the_same_texts_teach_the_same(capfd):
    draw = random.Random(0)
    # Many pairs that occur equally often.
    words = ["".join(draw.choices("abcdefgh", k=4)) for _ in range(600)]
    script = (
        "import sys; from lightning_xt.data.tokenizers.bpe import BPE; tokenizer = BPE(400); words = sys.argv[1:];"
        "tokenizer.train(lambda: words); print(tokenizer.init_args['model'])"
    )
    found = []
    for parallel in ("true", "false", ""):
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": parallel} if parallel else dict(os.environ)
        made = subprocess.run([sys.executable, "-c", script, *words], env=environment, capture_output=True, check=True)
        assert made.stderr == b""
        found.append(made.stdout.decode().removesuffix("\n"))
    here = BPE(400)
    for _ in range(2):
        here.train(lambda: iter(words))
        found.append(here.init_args["model"])
    assert len(set(found)) == 1
    assert len(json.loads(found[0])["model"]["vocab"]) == 400
    assert capfd.readouterr() == ("", "")


def save(path, change=lambda described: None):
    described = json.loads(LEARNT.init_args["model"])
    change(described)
    path.write_text(json.dumps(described), encoding="utf-8")
    return str(path)


def test_a_file_of_the_library(tmp_path, monkeypatch):
    def add(described):
        """Add the lengths of texts that a file may set."""
        described["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
        described["padding"] = {
            "strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "<pad>",
        }  # fmt: skip

    save(tmp_path / "tokenizer.json", add)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert BPE(file="~/tokenizer.json").vocab_size == 290
    assert BPE(8000, file="~/tokenizer.json").vocab_size == 8000, "weights for more ids than the file has may be there"
    tokenizer = BPE(280, file="~/tokenizer.json")
    assert tokenizer.vocab_size == 290
    assert tokenizer.encode("the cat <pad>") == LEARNT.encode("the cat <pad>")
    assert tokenizer.init_args == LEARNT.init_args
    tokenizer.train(lambda: pytest.fail("a given tokenizer learns nothing"))


def test_files_that_cannot_be_used(tmp_path):
    file = tmp_path / "tokenizer.json"
    place = rf"^--data.tokenizer.file {file}"
    with pytest.raises(FileNotFoundError, match=rf"{place}: no such file; give a tokenizer.json, or omit"):
        BPE(file=str(file))
    for content in (b"", b"no JSON", b"\xff", b"{}", b"[]"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{place} is not a tokenizer.json of the tokenizers library \("):
            BPE(file=str(file))

    def other_special(described):
        described["added_tokens"][1]["special"] = False

    def other_order(described):
        described["added_tokens"][0]["content"], described["added_tokens"][1]["content"] = "<start>", "<pad>"
        described["model"]["vocab"].update({"<start>": 0, "<pad>": 1})

    for change in (other_special, other_order):
        with pytest.raises(ValueError, match=rf"{place}: its ids 0, 1 and 2 are not the special tokens <pad>, <start>"):
            BPE(file=save(file, change))

    def no_decoder(described):
        described["decoder"] = None

    def no_exclamation(described):
        del described["model"]["vocab"]["!"]

    for change in (no_decoder, no_exclamation):
        with pytest.raises(ValueError, match=rf"{place} is not a byte-level BPE with all 256 bytes; train one"):
            BPE(file=save(file, change))

    def lower(described):
        described["normalizer"] = {"type": "Lowercase"}

    def no_pre_tokenizer(described):
        described["pre_tokenizer"] = None

    def a_space_first(described):
        described["pre_tokenizer"]["add_prefix_space"] = True

    for change in (lower, no_pre_tokenizer, a_space_first):
        with pytest.raises(ValueError, match=rf"{place} does not decode every text unchanged: [^;]*; train it with"):
            BPE(file=save(file, change))
    tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a")).save(str(file))
    with pytest.raises(ValueError, match=rf"{place} is not a byte-level BPE"):
        BPE(file=str(file))


@pytest.mark.parametrize("dropout", [0.1, 1.0])
def test_cases_d7_a_tokenizer_that_draws_is_refused(tmp_path, dropout):
    file = tmp_path / "tokenizer.json"
    with pytest.raises(
        ValueError, match=rf"has dropout {dropout:g}, which encodes .* set dropout in its model to null$"
    ):
        BPE(file=save(file, lambda described: described["model"].update(dropout=dropout)))
    with pytest.raises(ValueError, match=rf"^--data.tokenizer.model has dropout {dropout:g}"):
        BPE(model=file.read_text(encoding="utf-8"))
    save(file, lambda described: described["model"].update(dropout=0.0))
    assert all(BPE(file=str(file)).encode(LESSONS[0]) == LEARNT.encode(LESSONS[0]) for _ in range(5))


def step(kind, **options):
    return {"type": kind, **options}


IN_BYTES = step("ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=False)
PIECES = {"pattern": {"Regex": r"\s+|\S+"}, "invert": False}


def before(*steps):
    """Return the change that puts steps before the bytes."""
    return {"pre_tokenizer": step("Sequence", pretokenizers=[*steps, IN_BYTES])}


def add_token(content, **options):
    defaults = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    tokens = json.loads(LEARNT.init_args["model"])["added_tokens"]
    return {"added_tokens": [*tokens, {"id": 290, "content": content, **defaults, **options}]}


SOUND = {
    "bytes": before(),
    "GPT-4": before(step("Split", behavior="Isolated", **PIECES)),
    "nested": before(step("Sequence", pretokenizers=[step("Digits", individual_digits=True)])),
    "punctuation": before(step("Punctuation", behavior="MergedWithNext")),
    "no steps": {"normalizer": step("Sequence", normalizers=[])},
    "normalizer": {**before(), "normalizer": step("ByteLevel"), "pre_tokenizer": None},
    "added": add_token("<mask>"),
    "added with a space": add_token("a b"),
    "added special": add_token("caf\u00e9 ", special=True, lstrip=True),
}
LOSING = {
    **{kind: {"normalizer": step(kind)} for kind in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt")},
    "late normalizer": {"normalizer": step("Sequence", normalizers=[step("NFC")])},
    "replace": {"normalizer": step("Replace", pattern={"String": "qx"}, content="q")},
    "strip": {"normalizer": step("Strip", strip_left=False, strip_right=True)},
    "removed": before(step("Split", behavior="Removed", pattern={"String": "qx"}, invert=False)),
    "removed too": before(step("Punctuation", behavior="Removed")),
    "white space": before(step("WhitespaceSplit")),
    "delimiter": before(step("CharDelimiterSplit", delimiter="\u00e9")),
    "metaspace": before(step("Metaspace", replacement="\u2581", prepend_scheme="never", split=False)),
    "scripts": before(step("UnicodeScripts")),
    "twice": before(IN_BYTES),
    "no bytes": {"pre_tokenizer": step("Digits", individual_digits=True)},
    "added": add_token("caf\u00e9"),
    "added, strips": add_token("<mask>", rstrip=True),
}


def many_texts():
    """Draw texts of all kinds of characters, and of those that the files above remove."""
    draw = random.Random(0)
    characters = [chr(code) for code in [*range(0x3000), *range(0xAC00, 0xAC80), *range(0xF900, 0xFA00), 0x1F600]]
    yield from ODD
    yield from ("".join(characters), "qx a b caf\u00e9 <mask>  <pad> \u2581", "x <mask> \n y", "caf\u00e9  ")
    yield from ("".join(draw.choices(characters, k=20)) for _ in range(200))


@pytest.mark.parametrize("kind", SOUND)
def test_cases_d14_an_accepted_file_loses_no_text(tmp_path, kind):
    tokenizer = BPE(file=save(tmp_path / "tokenizer.json", lambda described: described.update(SOUND[kind])))
    for text in many_texts():
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text and not {0, 1, 2}.intersection(ids)


@pytest.mark.parametrize("kind", LOSING)
def test_cases_d14_a_file_that_loses_text_is_refused(tmp_path, kind):
    file = save(tmp_path / "tokenizer.json", lambda described: described.update(LOSING[kind]))
    library = tokenizers.Tokenizer.from_file(file)
    library.encode_special_tokens = True
    pieces = ((text, map(library.id_to_token, library.encode(text).ids)) for text in many_texts())
    assert any(library.decoder.decode(list(each)) != text for text, each in pieces), "this file loses nothing"
    with pytest.raises(ValueError, match=r"does not decode every text unchanged: it[^;]*; train it with the pre-token"):
        BPE(file=file)


def test_cases_d14_merges_that_make_a_special_token(tmp_path):
    def merge(described):
        described["pre_tokenizer"] = IN_BYTES
        described["model"]["vocab"] |= {"<p": 290, "<pa": 291, "<pad": 292}
        described["model"]["merges"] = [["<", "p"], ["<p", "a"], ["<pa", "d"], ["<pad", ">"]]

    with pytest.raises(ValueError, match="unchanged: its merges make text a special token, <pad>; train it"):
        BPE(file=save(tmp_path / "tokenizer.json", merge))
    for mark in ("continuing_subword_prefix", "end_of_word_suffix"):
        with pytest.raises(ValueError, match=f"its model has a {mark}[,;] "):
            BPE(file=save(tmp_path / "tokenizer.json", lambda described, m=mark: described["model"].update({m: "@@"})))


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(path, mode):
        raise PermissionError(13, "Permission denied", str(path))

    file = save(tmp_path / "tokenizer.json")
    monkeypatch.setattr("builtins.open", refuse)
    message = rf"^--data.tokenizer.file: cannot read {file} \(Permission denied\); make it readable or omit it$"
    with pytest.raises(ValueError, match=message):
        BPE(file=file)


def test_options_that_cannot_be(tmp_path):
    with pytest.raises(ValueError, match=r"^--data.tokenizer.vocab_size must be at least 259, not 258: 256 bytes and"):
        BPE(258)
    with pytest.raises(ValueError, match=r"^--data.tokenizer.vocab_size must be at most 16777216, not 1000000000000; "):
        BPE(10**12)
    with pytest.raises(
        ValueError, match=r"^--data.tokenizer.file x.json and --data.tokenizer.model are two tokenizers"
    ):
        BPE(file="x.json", model="{}")
    with pytest.raises(ValueError, match=r"^--data.tokenizer.model is not a tokenizer.json of the tokenizers library"):
        BPE(model="{")
    with pytest.raises(
        ValueError, match=r"^--data.tokenizer.model has 290 ids, but --data.tokenizer.vocab_size is 289"
    ):
        BPE(289, model=LEARNT.init_args["model"])


def test_cases_r15_a_prompt_cannot_contain_the_separator():
    assert Bytes().encode("a\udcff") == [97, 255]
    with pytest.raises(ValueError, match=r"byte 1 of a text is 255, which separates documents; remove it"):
        Bytes(separator=255).encode_prompt("a\udcff")


def test_cases_d8_ids_that_no_text_has(tmp_path):
    assert [list(each.unused) for each in (Bytes(), Bytes(separator=255), SpecialBytes())] == [[], [], [0, 1]]
    # A sequence of numbers may contain the start id.
    assert Numbers(9, pad=3, start=4).unused == [3] and Numbers(9, pad=None).unused == []
    assert BPE().unused == [0, 1] == LEARNT.unused
    assert train(5000).unused == [0, 1, *range(len(json.loads(train(5000).trained_state)["model"]["vocab"]), 5000)]
    file = save(tmp_path / "x.json", lambda described: described.update(add_token("<mask>", special=True)))
    assert BPE(295, file=file).unused == [0, 1, 290, 291, 292, 293, 294]


def learn(*texts, vocab_size=300):
    tokenizer = BPE(vocab_size)
    tokenizer.train(lambda: iter(texts))
    return tokenizer


@pytest.mark.parametrize(
    ("theirs", "ours", "said"),
    [
        (SpecialBytes(), Bytes(), "SpecialBytes instead of Bytes"),
        (Bytes(), Bytes(separator=255), "Bytes with separator None instead of 255"),
        (Numbers(9, end=2), Numbers(9), "Numbers with end 2 instead of None"),
        (Numbers(9), Numbers(8), "Numbers with vocab_size 9 instead of 8"),
        (learn("abab", "abab"), learn("acac", "acac"), "id 259 is 'ab' instead of 'ac'"),
        (learn("abab", "abab"), learn("abab", "abab", "xyxy", "xyxy"), "259 ids with a meaning instead of 261"),
        (BPE(300), learn("abab", "abab"), "a BPE that has not learned"),
        (learn("abab", "abab"), BPE(300), "a BPE that has learned"),
        (Numbers(9), Numbers(9), None),
        (learn("abab", "abab"), learn("abab", "abab"), None),
        (learn("abab", "abab", vocab_size=400), learn("abab", "abab"), None),
    ],
)
def test_cases_d19_a_difference_is_named(theirs, ours, said):
    assert describe_difference(theirs, ours) == said


@pytest.mark.parametrize(("separated", "opens"), [(True, 2), (False, None)])
def test_a_long_text_has_one_special_id_or_none(separated, opens):
    tokenizer = LEARNT.for_text(separated)
    assert (tokenizer.pad, tokenizer.start, tokenizer.end) == (None, opens, opens)
    assert (LEARNT.pad, LEARNT.start, LEARNT.end) == (0, 1, 2)
    assert tokenizer.encode("<end> a") == LEARNT.encode("<end> a")
    assert tokenizer.encode_prompt("a") == [*[2] * separated, *LEARNT.encode("a")]
    assert [each for each in tokenizer.unused if each < 3] == ([0, 1] if separated else [0, 1, 2])
    again = BPE(**json.loads(json.dumps(tokenizer.init_args)))
    assert (again.pad, again.start, again.end) == (None, opens, opens)
    assert Bytes().for_text(separated).start == (255 if separated else None)


def test_other_tokenizers_read_no_long_text():
    with pytest.raises(ValueError, match=r"--data.tokenizer Numbers does not read long texts; set .* Bytes or BPE$"):
        Numbers(9).for_text(False)


def test_other_special_ids_are_another_tokenizer():
    text = LEARNT.for_text(True)
    other = copy.copy(text)
    other.start = other.end = 1
    assert describe_difference(text, other) == "the start id 2 instead of 1"
    # Joined texts use no special id.
    assert describe_difference(text, LEARNT.for_text(False)) is None


def test_a_state_is_restored():
    again = BPE(LEARNT.vocab_size)
    again.restore(LEARNT.trained_state)
    assert again.encode("the dogs") == LEARNT.encode("the dogs")


def test_sentinels_and_modes_are_spelled_in_texts():
    tokenizer = SentinelBytes(num_sentinels=11, modes=["R", "X"])
    assert tokenizer.vocab_size == 256 + 3 + 11 + 2
    assert tokenizer.encode("[X]a<extra_id_10><extra_id_0>b[R]") == [271, 100, 269, 259, 101, *(b + 3 for b in b"[R]")]
    assert tokenizer.decode([1, 271, 100, 269, 259, 101, 2]) == "[X]a<extra_id_10><extra_id_0>b"
    # A sentinel that the tokenizer does not have is text.
    assert tokenizer.encode("<extra_id_11>") == [byte + 3 for byte in b"<extra_id_11>"]
    assert tokenizer.encode("[S]") == [byte + 3 for byte in b"[S]"]
    # Half a character ends at a sentinel.
    assert stream(tokenizer, [3 + 0xC3, 259, 3 + 0xC3, 3 + 0xA9, 3 + 0xC3]) == (
        ["", "\ufffd<extra_id_0>", "", "\u00e9", ""],
        "\ufffd",
    )
    # What is left at the end is half a character too.
    assert tokenizer.decode([259, 3 + 0xC3]) == "<extra_id_0>\ufffd"
    # Neither pad, start nor a mode is generated; sentinels are.
    assert sorted(tokenizer.unused) == [0, 1, 270, 271]
    again = SentinelBytes(**json.loads(json.dumps(tokenizer.init_args)))
    assert describe_difference(again, tokenizer) is None
    assert describe_difference(SentinelBytes(11), tokenizer) == "SentinelBytes with modes [] instead of ['R', 'X']"
    with pytest.raises(ValueError, match=r"SentinelBytes has --data.tokenizer.num_sentinels -1, .* at least 0$"):
        SentinelBytes(-1)
