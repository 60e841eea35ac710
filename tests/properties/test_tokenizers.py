"""Tokenizers and stop strings, for any text and any cut."""

import base64
import json
from functools import cache

from hypothesis import strategies as st
from made_tokenizers import MADE, content, sentence_piece
from properties.holds import holds

from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.data.tokenizers.bpe import BPE
from lightning_xt.data.tokenizers.bytes import Bytes
from lightning_xt.data.tokenizers.numbers import Numbers
from lightning_xt.data.tokenizers.sentence_piece import SentencePiece
from lightning_xt.data.tokenizers.sentinel_bytes import SentinelBytes
from lightning_xt.data.tokenizers.special_bytes import SpecialBytes
from lightning_xt.data.tokenizers.tokenizer_file import TokenizerFile
from lightning_xt.generation.stop_strings import StopStrings

SPELLED = st.lists(st.sampled_from(["<extra_id_3>", *"ab <pad>é🙂\n"]), max_size=40).map("".join)
TEXTS = st.text(max_size=40) | SPELLED


@cache
def train_bpe() -> BPE:
    made = BPE(300)
    made.train(lambda: ["a red dog runs", "ein roter Hund läuft 🙂", "<pad><start><end>", "  tabs\tand\n lines "] * 4)
    return made


KINDS = st.sampled_from(["bytes", "special", "sentinel", "bpe", "gpt2", "llama3"])
CHANGING = st.sampled_from([*sorted(MADE.keys() - {"gpt2", "llama3"}), "sentencepiece"])


@cache
def make(kind: str) -> Tokenizer:
    if kind in MADE:
        return TokenizerFile(model=content(kind))
    if kind == "sentencepiece":
        return SentencePiece(model=base64.b64encode(sentence_piece("bpe")).decode())
    kinds = {"bytes": Bytes, "special": SpecialBytes, "sentinel": SentinelBytes, "bpe": train_bpe}
    return kinds[kind]()


@holds(text=TEXTS, kind=KINDS)
def test_a_text_comes_back(text: str, kind: str) -> None:
    tokenizer = make(kind)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode_batch([text, "", text]) == [ids, [], ids]
    specials = {tokenizer.pad, tokenizer.start, tokenizer.end} - {None}
    assert all(0 <= each < tokenizer.vocab_size for each in ids) and not specials & {*ids}


@holds(content=st.binary(max_size=40))
def test_bytes_of_the_command_line_come_back(content: bytes) -> None:
    typed = content.decode("utf-8", "surrogateescape")
    assert bytes(Bytes().encode(typed)) == content
    assert SpecialBytes().encode(typed) == [byte + 3 for byte in content]
    assert train_bpe().decode(train_bpe().encode(typed)) == content.decode("utf-8", "replace")


@holds(text=TEXTS, kind=CHANGING)
def test_a_tokenizer_that_changes_texts_gives_ids_of_text(text: str, kind: str) -> None:
    tokenizer = make(kind)
    ids = tokenizer.encode(text)
    assert (
        tokenizer.encode_batch([text, text])
        == [ids, ids]
        == [each.tolist() for each in tokenizer.encode_arrays([text] * 2)]
    )
    assert not {*tokenizer.unused, tokenizer.end} & {*ids}
    if kind in ("llama2", "sentencepiece") and "\u2581" not in text:
        assert tokenizer.decode(ids) == text


@holds(ids=st.lists(st.integers(0, 255), max_size=30), kind=KINDS | CHANGING)
def test_pieces_are_certain_and_together_the_text(ids: list[int], kind: str) -> None:
    tokenizer = make(kind)
    stream, text = tokenizer.stream(), tokenizer.decode(ids)
    shown = ""
    for each in ids:
        shown += stream.push(each)
        assert text.startswith(shown)
    assert shown + stream.finish() == text


@holds(ids=st.lists(st.integers(0, 19), max_size=20), specials=st.permutations([0, 1, 2]))
def test_numbers_come_back(ids: list[int], specials: list[int]) -> None:
    pad, start, end = specials
    numbers = Numbers(20, pad=pad, start=start, end=end)
    plain = [each for each in ids if each not in specials]
    assert numbers.encode(numbers.decode(ids)) == plain
    stream = numbers.stream()
    assert "".join(map(stream.push, ids)) + stream.finish() == numbers.decode(ids)


@holds(texts=st.lists(TEXTS, min_size=1, max_size=4), size=st.integers(259, 290), text=TEXTS, default=25, many=300)
def test_what_was_learned_is_kept(texts: list[str], size: int, text: str) -> None:
    tokenizer = BPE(size)
    tokenizer.train(lambda: texts * 2)
    again = BPE(**json.loads(json.dumps(tokenizer.init_args)))
    assert again.encode(text) == tokenizer.encode(text)
    assert again.init_args == tokenizer.init_args
    assert again.decode(again.encode(text)) == text
    assert again.vocab_size == size


SHORT = st.text(st.sampled_from("abc"), min_size=1, max_size=4)


@holds(stops=st.lists(SHORT, max_size=3), pieces=st.lists(st.text(st.sampled_from("abc"), max_size=4), max_size=10))
def test_a_text_ends_where_the_first_stop_begins(stops: list[str], pieces: list[str]) -> None:
    whole = "".join(pieces)
    found = [place for place in map(whole.find, stops) if place >= 0]
    expected = whole[: min(found, default=len(whole))]
    cutter, shown = StopStrings(stops), ""
    for piece in pieces:
        shown += cutter.push(piece)
        assert expected.startswith(shown)
    shown += cutter.finish()
    assert (shown, cutter.stopped) == (expected, bool(found))
