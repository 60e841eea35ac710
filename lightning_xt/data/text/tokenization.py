"""Tokens of a long text, written once to the data folder."""

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray

from lightning_xt.data.files.data_folder import prepared_folders, store
from lightning_xt.data.files.file_digests import hash_file, require_unchanged, stat_files
from lightning_xt.data.files.reading import BLOCK, named_errors
from lightning_xt.data.loading.progress import with_progress
from lightning_xt.data.text.mapped_tokens import MappedTokens, choose_token_type
from lightning_xt.data.text.pieces import LEARNED_PIECE, TextPart, cut_pieces
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.data.tokenizers.custom_code import read_custom_code
from lightning_xt.data.tokenizers.repetition import refuse_random

RECIPE = 1
"""Raised when the same text and tokenizer give other tokens, or a tokenizer learns otherwise."""
BATCH = 1 << 21
"""Bytes of a text that are encoded at once; a library's threads share them."""


class TextTokenization:
    """Tokenization of the parts of a text.

    Args:
        tokenizer: one of long texts; if it learns, it does so before it encodes.
        separator: the byte before each document of the text. None = there is none.
        what: the text in messages.
    """

    def __init__(self, tokenizer: Tokenizer, separator: int | None, what: str) -> None:
        self.tokenizer, self.separator, self.what = tokenizer, separator, what

    def learn(self, text: MappedTokens) -> None:
        """Let the tokenizer learn from a text, unless it is ready; what it learns is kept in the data folder."""
        if self.tokenizer.is_ready:
            return

        def learned() -> Iterator[bytes]:
            self.tokenizer.train(lambda: self._read(text, "training the tokenizer on"))
            yield str(self.tokenizer.trained_state).encode("utf-8")

        file = store(f"tokenizer{RECIPE}", self._hash(text), learned)
        if not self.tokenizer.is_ready:
            self.tokenizer.restore(file.read_text(encoding="utf-8"))

    def encode(self, text: MappedTokens) -> MappedTokens:
        """Return the tokens of a text.

        Raises:
            ValueError: the tokenizer draws random numbers, or the text changed while it was read.
        """
        kind = choose_token_type(self.tokenizer.vocab_size)
        name, key = f"tokens{RECIPE}", self._hash(text, np.dtype(kind).str)
        self._remove_older(name, key)

        def tokens() -> Iterator[bytes]:
            for ids in self._encode(text):
                yield ids.astype(np.dtype(kind).newbyteorder("<")).tobytes()

        return MappedTokens(store(name, key, tokens), dtype=kind)

    def _encode(self, text: MappedTokens) -> Iterator[NDArray[np.uint32]]:
        """Yield the ids of a text; the opening id of a document comes before its own."""
        opening = np.asarray([] if self.tokenizer.start is None else [self.tokenizer.start], dtype=np.uint32)
        decoder, checked = _Decoder(), False
        for batch in _batch(self._cut(text, "tokenizing"), BATCH):
            texts = [decoder.decode(piece.content) for piece in batch]
            found = self.tokenizer.encode_arrays(texts)
            if not checked and any(texts):
                # One with content: of an empty text every tokenizer makes the same.
                first = next(number for number, text in enumerate(texts) if text)
                refuse_random(self.tokenizer, texts[first : first + 1], found[first : first + 1])
                checked = True
            for piece, ids in zip(batch, found, strict=True):
                if piece.opens:
                    yield opening
                yield ids
        if decoder.replaced:
            rank_zero_info(
                f"{self.what} is not UTF-8 everywhere: {decoder.replaced:,} pieces of it have other bytes, "
                "which become U+FFFD; --data.tokenizer Bytes reads any bytes"
            )

    def _read(self, text: MappedTokens, doing: str) -> Iterator[str]:
        return (piece.content.decode("utf-8", errors="replace") for piece in self._cut(text, doing, LEARNED_PIECE))

    def _cut(self, text: MappedTokens, doing: str, most: int | None = None) -> Iterator[TextPart]:
        return cut_pieces(
            with_progress(self._read_bytes(text), f"{doing} {self.what}", len(text)), self.separator, most
        )

    def _read_bytes(self, text: MappedTokens) -> Iterator[bytes]:
        """Yield the bytes of a part of a text, without mapping it: mapped pages would count as memory."""
        before = stat_files([text.path])
        with named_errors(text.path), open(text.path, "rb") as file:
            file.seek(text.start)
            left = len(text)
            while left and (block := file.read(min(BLOCK, left))):
                left -= len(block)
                yield block
        require_unchanged([text.path], before, self.what)

    def _hash(self, text: MappedTokens, *options: str) -> str:
        """Hash the text and what the tokenizer does with it."""
        state = self.tokenizer.trained_state or sorted(self.tokenizer.init_args.items())
        kind = type(self.tokenizer).__name__, state, self.tokenizer.start, *read_custom_code(type(self.tokenizer))
        described = kind, hash_file(text.path), text.start, text.stop, self.separator, *options
        return hashlib.sha256(repr(described).encode()).hexdigest()

    def _remove_older(self, name: str, key: str) -> None:
        """Remove the tokens of an older version of this package, which are made again."""
        older = [file for folder in prepared_folders() for file in folder.glob(f"tokens*-{key[:16]}.bin")]
        for file in older:
            if file.name.split("-")[0] != name:
                rank_zero_info(f"{file} is from another version of lightning-xt; its tokens are made again")
                file.unlink(missing_ok=True)


class _Decoder:
    """Decoder of pieces that counts those that are not UTF-8."""

    def __init__(self) -> None:
        self.replaced = 0

    def decode(self, content: bytes) -> str:
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            self.replaced += 1
            return content.decode("utf-8", errors="replace")


def _batch(pieces: Iterable[TextPart], size: int) -> Iterator[list[TextPart]]:
    """Yield lists of pieces of about `size` bytes together."""
    batch: list[TextPart] = []
    filled = 0
    for piece in pieces:
        batch.append(piece)
        # A piece of no bytes takes time too.
        filled += len(piece.content) + 1
        if filled >= size:
            yield batch
            batch, filled = [], 0
    if batch:
        yield batch
