"""Tokenizer of a `tokenizer.json`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as Library

from lightning_xt.data.tokenizers.base import Specials, as_array
from lightning_xt.data.tokenizers.foreign_tokenizer import ForeignTokenizer
from lightning_xt.data.tokenizers.library_files import (
    count_ids,
    named_encoding_errors,
    read_library,
    replace_surrogates,
)
from lightning_xt.data.tokenizers.library_pieces import build_decoder, find_typed, find_unknown, is_byte_level
from lightning_xt.data.tokenizers.lossless import find_loss
from lightning_xt.data.tokenizers.restoration import describe_changes
from lightning_xt.data.tokenizers.special_tokens import find_ids


class TokenizerFile(ForeignTokenizer):
    """Use a `tokenizer.json` of the `tokenizers` library: any byte-pair encoding, Unigram, WordPiece or WordLevel.

    Such as those of GPT-2, Llama, Qwen, Gemma, T5 or BERT, with their own special tokens. The spelling of a special
    token in a text stays text. A tokenizer may change texts, such as their case or spaces: it is accepted, and what it
    does not keep is reported. A checkpoint holds the content of the file.

    Args:
        file: the file, plain or `.gz`.
        pad: the special token that fills batches of pairs. None = the first usual name that the file has, such as
            <pad> or [PAD]; an empty text = none.
        start: the special token that opens a text in pairs. None = likewise, such as <s>, <bos> or [CLS], else the end
            token.
        end: the special token that ends a text, and that opens each document of a long text. None = likewise, such as
            </s>, <eos>, <|endoftext|>, <|end_of_text|> or [SEP].
        padded_size: number of ids if the model's tables have more than the file; the others stand for nothing. None =
            those of the file.
        model: the content of such a file, as a checkpoint stores it.
        specials: the special ids in use: `pairs` = all three; `documents` = the end id, which opens each document of a
            long text and ends the one before; `none`. Corpora set it.
    """

    wanted = "a tokenizer.json of the tokenizers library"

    @property
    def trained_state(self) -> str | None:
        return self._state

    @property
    def unused(self) -> Sequence[int]:
        used = self._used - (set(self._special.values()) - {self.end})
        return [token for token in range(self.vocab_size) if token not in used]

    def encode(self, text: str) -> list[int]:
        return self._respell(self._library.encode(replace_surrogates(text), add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        cleaned = [replace_surrogates(text) for text in texts]
        return [self._respell(each.ids) for each in self._library.encode_batch(cleaned, add_special_tokens=False)]

    def encode_arrays(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        cleaned = [replace_surrogates(text) for text in texts]
        found = self._library.encode_batch_fast(cleaned, add_special_tokens=False)
        return [as_array(self._respell(each.ids)) for each in found]

    def _unpack(self, state: str) -> bytes:
        return state.encode("utf-8")

    def _read(self, content: bytes) -> None:
        """Read a tokenizer; ValueError if it is unsupported."""
        described, library = read_library(self._place, content)
        self._library: Library = library
        self._state = str(library.to_str())
        self._used = set(library.get_vocab().values())
        self._unknown = find_unknown(described, library)
        added = library.get_added_tokens_decoder().items()
        # One character is text too, as the ! that some files have for padding.
        special = {each.content: token for token, each in added if each.special and len(each.content) > 1}
        self._special = {name: token for name, token in special.items() if token != self._unknown}
        with named_encoding_errors(self._place):
            self._typed = find_typed(described, library, self._special)
            self._decoder = build_decoder(self._place, described, library, self._special.values(), self._unknown)
            self._changes = self._find_changes(described)

    def _count_ids(self) -> int:
        return count_ids(self._library)

    def _find_changes(self, described: dict[str, Any]) -> str | None:
        if is_byte_level(described, self._library):
            loss = find_loss(described, self._library, ())
        else:
            loss = "it is not a BPE of bytes"
        if loss is None:
            return None
        return describe_changes(self._restore) or f"it may change rare texts: {loss}"

    def _restore(self, text: str) -> str | None:
        ids = self.encode(text)
        return None if self._unknown in ids else self.decode(ids)

    def _use_specials(self, specials: Specials) -> None:
        self.specials = specials
        self.pad, self.start, self.end = find_ids(self._place, self._special, self._names, specials)

    def _respell(self, ids: list[int]) -> list[int]:
        """Replace special ids, for which some models take their spelling, by the ids of parts of the spelling."""
        if not self._typed or self._typed.keys().isdisjoint(ids):
            return ids
        return [part for token in ids for part in self._typed.get(token, (token,))]
