"""Byte-level byte-pair encoding."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers, trainers

from lightning_xt.data.files.reading import read_whole
from lightning_xt.data.loading.progress import show_activity
from lightning_xt.data.tokenizers.base import Specials, TextStream, Tokenizer, as_array
from lightning_xt.data.tokenizers.library_files import (
    count_ids,
    find_mark,
    named_encoding_errors,
    read_library,
    replace_surrogates,
)
from lightning_xt.data.tokenizers.library_pieces import build_decoder, is_byte_level
from lightning_xt.data.tokenizers.lossless import find_loss
from lightning_xt.data.tokenizers.piece_decoder import PieceStream

SPECIALS = ("<pad>", "<start>", "<end>")
SMALLEST = 256 + len(SPECIALS)
DEFAULT = 8000
LARGEST = 2**24
"""Most ids. The library reserves memory for them before it trains, and ends the process if there is none."""
MIN_COUNT = 2  # a pair of pieces that occurs once gets no id
WANTED = "a tokenizer.json, or omit the option to train a tokenizer"
PROBE = "Two  spaces,\ttabs\nand ÄÖ é e\u0301 ﬁ 日本 🙂 don't 0123\x01 <pad><start><end> <pad> "
"""A text with everything that tokenizers are known to alter: a second proof."""


class BPE(Tokenizer):
    """Split text into learned sub-words: byte-level byte-pair encoding (Sennrich et al., 2016).

    Ids 0, 1 and 2 are the pad, start and end ids. Every byte has an id, so every text can be encoded and is decoded
    unchanged. The `tokenizers` library does the work.

    Args:
        vocab_size: number of ids, at least 259 (the bytes and three special ids) and at most 2**24. A short text may
            give fewer sub-words; the remaining ids are unused and never generated. None = 8000, or those of `file`.
        file: a `tokenizer.json` of the `tokenizers` library to use instead of training; if it has more ids than
            `vocab_size`, its number of ids counts. It must be a byte-level BPE without dropout that decodes every text
            unchanged, and whose ids 0, 1 and 2 are the special tokens <pad>, <start> and <end>.
        model: the content of such a file; a checkpoint stores the trained tokenizer this way.
        specials: the special ids in use: `pairs` = all three; `documents` = the end id, which opens each document of a
            long text and ends the one before; `none`. Corpora set it.
    """

    def __init__(
        self,
        vocab_size: int | None = None,
        *,
        file: str | None = None,
        model: str | None = None,
        specials: Specials = "pairs",
    ) -> None:
        wanted, vocab_size = vocab_size, DEFAULT if vocab_size is None else vocab_size
        if vocab_size < SMALLEST:
            raise ValueError(
                f"--data.tokenizer.vocab_size must be at least {SMALLEST}, not {vocab_size}: 256 bytes and the pad, "
                f"start and end ids; set --data.tokenizer.vocab_size {SMALLEST} or more"
            )
        if vocab_size > LARGEST:
            raise ValueError(
                f"--data.tokenizer.vocab_size must be at most {LARGEST}, not {vocab_size}; most tokenizers have "
                "8000 to 200000 ids"
            )
        if file is not None and model is not None:
            raise ValueError(
                f"--data.tokenizer.file {file} and --data.tokenizer.model are two tokenizers; give one of them"
            )
        self.specials = specials
        self.pad, self.start = (0, 1) if specials == "pairs" else (None, 2 if specials == "documents" else None)
        self.end = None if specials == "none" else 2
        self._vocab_size = vocab_size
        self._is_given = file is not None or model is not None
        self._library: Library | None = None
        if file is not None:
            library = _load(f"--data.tokenizer.file {file}", read_whole("--data.tokenizer.file", file, WANTED))
            self._vocab_size = max(wanted or 0, count_ids(library))
            self._use(library)
        if model is not None:
            library = _load("--data.tokenizer.model", model.encode("utf-8"))
            if count_ids(library) > vocab_size:
                raise ValueError(
                    f"--data.tokenizer.model has {count_ids(library)} ids, but --data.tokenizer.vocab_size is "
                    f"{vocab_size}; keep both as in the checkpoint"
                )
            self._use(library)

    @property
    def init_args(self) -> dict[str, Any]:
        return {"vocab_size": self._vocab_size, "model": self.trained_state, "specials": self.specials}

    @property
    def trained_state(self) -> str | None:
        return None if self._library is None else str(self._library.to_str())

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    @property
    def unused(self) -> Sequence[int]:
        if self._library is None:
            return super().unused
        library = self._library
        # The spelling of an added special token is encoded as text.
        special = {token for token, added in library.get_added_tokens_decoder().items() if added.special}
        used = set(library.get_vocab().values()) - (special - {self.end})
        return [token for token in range(self._vocab_size) if token not in used]

    @property
    def is_ready(self) -> bool:
        return self._library is not None

    def for_text(self, separated: bool) -> Self:
        return type(self)(**self.init_args | {"specials": "documents" if separated else "none"})

    def for_examples(self) -> Self:
        return self.for_text(separated=True)

    def train(self, texts: Callable[[], Iterable[str]]) -> None:
        """Learn the sub-words from texts, unless a file or a model was given."""
        if self._is_given:
            return
        library = Library(models.BPE())
        # A space before the first word would be decoded with the text.
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        library.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self._vocab_size,
            min_frequency=MIN_COUNT,
            show_progress=False,
            special_tokens=list(SPECIALS),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        )
        with ExitStack() as after:

            def read() -> Iterator[str]:
                yield from map(replace_surrogates, texts())
                after.enter_context(show_activity("merging sub-words"))

            library.train_from_iterator(read(), trainer)
        library.encode_special_tokens = True
        self._use(library)

    def restore(self, state: str) -> None:
        self._use(_load("--data.tokenizer.model", state.encode("utf-8")))

    def _use(self, library: Library) -> None:
        self._library = library
        self._decoder = build_decoder("BPE", json.loads(library.to_str()), library, range(len(SPECIALS)), None)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._require_trained().encode(replace_surrogates(text), add_special_tokens=False).ids
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        cleaned = [replace_surrogates(text) for text in texts]
        return [each.ids for each in self._require_trained().encode_batch(cleaned, add_special_tokens=False)]

    def encode_arrays(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        cleaned = [replace_surrogates(text) for text in texts]
        # Faster than `encode_batch`: the library keeps no places of tokens in the text.
        return [
            as_array(each.ids) for each in self._require_trained().encode_batch_fast(cleaned, add_special_tokens=False)
        ]

    def decode(self, ids: Sequence[int]) -> str:
        self._require_trained()
        return self._decoder.decode(ids)

    def stream(self) -> TextStream:
        self._require_trained()
        return PieceStream(self._decoder)

    def __reduce__(self) -> tuple[Any, ...]:
        # The library loses settings when it is pickled.
        return (partial(type(self), **self.init_args), ())

    def _require_trained(self) -> Library:
        if self._library is None:
            raise ValueError(
                "the BPE tokenizer is not trained; train it on texts first, or name a tokenizer.json with "
                "--data.tokenizer.file"
            )
        return self._library


def _load(place: str, content: bytes) -> Library:
    """Load a byte-level BPE with our special tokens that restores every text; ValueError for another tokenizer."""
    described, library = read_library(place, content)
    if mark := find_mark(described):
        raise _refuse_loss(place, f"its model has a {mark}")
    if not is_byte_level(described, library):
        raise ValueError(
            f"{place} is not a byte-level BPE with all 256 bytes; train one, omit the option, or set --data.tokenizer "
            "TokenizerFile, which takes any"
        )
    # If the ids of a file are inconsistent, the library replaces them.
    given = json.loads(content).get("added_tokens") or ()
    special = {added["id"]: added["content"] for added in given if added["special"]}
    ids = range(len(SPECIALS))
    if tuple(map(special.get, ids)) != SPECIALS or tuple(map(library.id_to_token, ids)) != SPECIALS:
        raise ValueError(
            f"{place}: its ids 0, 1 and 2 are not the special tokens {', '.join(SPECIALS)}; train it with these three "
            "first, in this order, or set --data.tokenizer TokenizerFile, which takes others"
        )
    with named_encoding_errors(place):
        _check_encoding(place, described, library)
    return library


def _check_encoding(place: str, described: dict[str, Any], library: Library) -> None:
    """Raise a ValueError for a tokenizer that loses text."""
    loss = find_loss(described, library, SPECIALS)
    encoded = library.encode(PROBE, add_special_tokens=False).ids
    pieces = [library.id_to_token(token) for token in encoded]
    if loss is None and (library.decoder.decode(pieces) != PROBE or set(encoded).intersection(range(len(SPECIALS)))):
        loss = f"it fails on {PROBE!r}"
    if loss is not None:
        raise _refuse_loss(place, loss)


def _refuse_loss(place: str, loss: str) -> ValueError:
    return ValueError(
        f"{place} does not decode every text unchanged: {loss}; train it with the pre-tokenizer ByteLevel, without "
        "a space before the first word, without a normalizer and without more added tokens, or set --data.tokenizer "
        "TokenizerFile, which takes others"
    )
