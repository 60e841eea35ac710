"""Pieces of the `tokenizers` library: their text, and those that spell a special token."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from tokenizers import Tokenizer as Library

from lightning_xt.data.tokenizers.library_files import list_steps
from lightning_xt.data.tokenizers.piece_decoder import PieceDecoder

PRINTABLE = (*range(33, 127), *range(161, 173), *range(174, 256))
"""Bytes that a byte-level tokenizer writes as the character of the same number; others have those from 256 on."""
PROBES = ("Two  words, don't \u00e9\u65e5\U0001f642 ", " a", "x\n\ty", "A.B 01")
"""Texts whose decoding is compared with that of the library."""


def build_decoder(
    place: str, described: dict[str, Any], library: Library, special: Collection[int], unknown: int | None
) -> PieceDecoder:
    """Build the decoder of a tokenizer, which omits special ids and shows an unknown token as U+FFFD.

    Raises:
        ValueError: the library decodes otherwise.
    """
    steps = [each["type"] for each in list_steps(described.get("decoder"))]
    spelled = read_bytes_of_characters() if "ByteLevel" in steps else None
    hidden = set(special)

    def read(token: int) -> str | bytes | None:
        piece = None if token in hidden else library.id_to_token(token)
        if piece is None or token == unknown:
            return None if piece is None else "\ufffd" if spelled is None else "\ufffd".encode()
        if spelled is not None:
            known = [spelled.get(each) for each in piece]
            return piece.encode("utf-8") if None in known else bytes(each for each in known if each is not None)
        byte = re.fullmatch(r"<0x([0-9A-F]{2})>", piece) if "ByteFallback" in steps else None
        return piece if byte is None else bytes([int(byte[1], 16)])

    def join(pieces: list[str]) -> str:
        return str(library.decoder.decode(pieces)) if steps else " ".join(pieces)

    decoder = PieceDecoder(join, read)
    for text in PROBES:
        encoded = library.encode(text, add_special_tokens=False).ids
        ids = [token for token in encoded if token not in hidden and token != unknown]
        theirs = library.decode(ids, skip_special_tokens=False)
        if decoder.decode(ids) != theirs:
            raise ValueError(
                f"{place} has the decoder {' and '.join(steps)}, which does not decode a token after the other: "
                f"{decoder.decode(ids)!r} instead of {theirs!r}; use a tokenizer with another decoder"
            )
    return decoder


def is_byte_level(described: dict[str, Any], library: Library) -> bool:
    """Return True for a byte-pair encoding with a token for each byte."""
    kinds = [(described.get(part) or {}).get("type") for part in ("model", "decoder")]
    return kinds == ["BPE", "ByteLevel"] and read_bytes_of_characters().keys() <= library.get_vocab().keys()


def find_unknown(described: dict[str, Any], library: Library) -> int | None:
    """Return the id that stands for what a model does not know; None if there is none, or the model knows all."""
    model = described["model"]
    if is_byte_level(described, library):
        return None
    if model["type"] == "Unigram":
        found = model.get("unk_id")
    else:
        name = model.get("unk_token")
        found = None if name is None else library.token_to_id(name)
    return None if found is None else int(found)


def find_typed(described: dict[str, Any], library: Library, special: Mapping[str, int]) -> dict[int, list[int]]:
    """Return, by special id, the ids of the parts of its spelling: of those ids that a model may give to a text."""
    model = described["model"]
    vocab = model.get("vocab") or {}
    names = {each[0] for each in vocab} if isinstance(vocab, list) else set(vocab)
    if model["type"] == "BPE" and not model.get("ignore_merges"):
        merges = (each.split(" ") if isinstance(each, str) else each for each in model["merges"])
        names = {"".join(each) for each in merges}
    return {token: _cut(name, library, set(special.values())) for name, token in special.items() if name in names}


def _cut(name: str, library: Library, special: Collection[int]) -> list[int]:
    """Return the ids of a special token's spelling in parts."""
    found: list[int] = []
    for part in (name[:1], name[1:]):
        for each in library.model.tokenize(part) if part else ():
            found += _cut(each.value, library, special) if each.id in special else [each.id]
    return found


def read_bytes_of_characters() -> dict[str, int]:
    """Return the byte of each character in which a byte-level tokenizer writes its pieces."""
    others = [byte for byte in range(256) if byte not in PRINTABLE]
    return {chr(byte): byte for byte in PRINTABLE} | {chr(256 + n): byte for n, byte in enumerate(others)}
