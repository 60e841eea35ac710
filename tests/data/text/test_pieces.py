"""Pieces of a text: the whole text, cut where tokens are cut, whatever the blocks."""

import numpy as np
import pytest

from lightning_xt.data.text import pieces
from lightning_xt.data.text.pieces import cut_pieces
from lightning_xt.data.tokenizers.bpe import BPE

PROSE = ("A red dog, isn't it? It runs 1,234 miles;\n\n\tthen   sleeps. " + "Ein  Hund läuft über die Straße… ") * 60


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 101)
    monkeypatch.setattr(pieces, "TAIL", 40)


def cut(content, separator=None, block=1000):
    blocks = [content[first : first + block] for first in range(0, len(content), block)]
    return list(cut_pieces(blocks, separator))


def test_pieces_are_the_text():
    found = cut(PROSE.encode())
    assert b"".join(piece.content for piece in found) == PROSE.encode()
    assert not any(piece.opens for piece in found)
    assert len(found) > 50
    assert max(len(piece.content) for piece in found) <= 101
    # Each ends before the space of a word, in whole characters.
    assert all(piece.content.decode().startswith(" ") for piece in found[1:])
    assert not any(piece.content[-1:].isspace() for piece in found[:-1])


@pytest.mark.parametrize("block", [1, 7, 100, 10**6])
@pytest.mark.parametrize("separator", [None, 255])
def test_pieces_do_not_depend_on_the_blocks(block, separator):
    content = PROSE.encode() if separator is None else b"\xff".join([b"", b"one", PROSE.encode(), b"", b"two"])
    assert cut(content, separator, block) == cut(content, separator)


def test_documents_open_with_their_first_piece():
    content = b"\xffone\xff" + PROSE.encode() + b"\xff\xfftwo"
    found = cut(content, 255)
    rebuilt = b"".join(b"\xff" * piece.opens + piece.content for piece in found)
    assert rebuilt == content
    assert sum(piece.opens for piece in found) == 4
    # A part of a text may begin in the middle of a document.
    assert [piece.opens for piece in cut(b"rest\xffone", 255)] == [False, True]


@pytest.mark.parametrize("text", ["字" * 200, "x" * 500, ("字" * 9 + "\n") * 30, "   \n" * 100])
def test_a_text_without_words_is_cut_between_characters(text):
    found = cut(text.encode())
    assert "".join(piece.content.decode() for piece in found) == text
    assert len(found) > 2


def test_bytes_outside_characters_are_kept():
    content = b"\x80" * 1000
    assert b"".join(piece.content for piece in cut(content)) == content


def test_tokens_are_those_of_the_whole_text():
    tokenizer = BPE(600)
    tokenizer.train(lambda: [PROSE])
    found = tokenizer.encode_arrays([piece.content.decode() for piece in cut(PROSE.encode())])
    assert np.concatenate(found).tolist() == tokenizer.encode(PROSE)


def test_a_tokenizer_learns_from_smaller_pieces():
    text = b"a few words " * 20_000
    found = [len(piece.content) for piece in pieces.cut_pieces([text], None, pieces.LEARNED_PIECE)]
    assert sum(found) == len(text) and max(found) <= pieces.LEARNED_PIECE < 2 * min(found[:-1])
