"""Byte-level pieces of words, learnt from text."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers, trainers

from lightning_xt.data.tokenizers.base import TextStream, Tokenizer

SPECIALS = ("<pad>", "<start>", "<end>")
SMALLEST = 256 + len(SPECIALS)
LEAST_COUNT = 2  # a pair of pieces that the text holds once is not worth an id
PROBE = "Two  spaces,\ttabs\nand ÄÖ é 日本 🙂 don't 0123\x01"
"""A text with what tokenizers are known to change."""


class BPE(Tokenizer):
    """Reads text as pieces of words that are learnt from it: byte-level byte-pair encoding (Sennrich et al., 2016).

    Its ids 0, 1 and 2 pad, open and end a text. Every byte has an id of its own, so no text is unknown and every text
    comes back as it was. The work is done by the `tokenizers` library.

    Args:
        vocab_size: number of ids, at least 259: the bytes and three special ones. A short text may teach fewer; the
            rest stay unused.
        file: a `tokenizer.json` of the `tokenizers` library, which is used instead of learning one; where it has more
            ids than `vocab_size`, their number takes its place. It must be a byte-level BPE whose ids 0, 1 and 2 are
            the special tokens <pad>, <start> and <end>.
        model: the content of such a file, which is how a checkpoint keeps what was learnt.
    """

    pad, start, end = 0, 1, 2

    def __init__(self, vocab_size: int = 8000, *, file: str | None = None, model: str | None = None) -> None:
        if vocab_size < SMALLEST:
            raise ValueError(
                f"data.tokenizer.vocab_size must be at least {SMALLEST}, not {vocab_size}: 256 bytes, and the ids that "
                f"pad, open and end a text; set --data.tokenizer.vocab_size {SMALLEST} or more"
            )
        if file is not None and model is not None:
            raise ValueError(
                f"data.tokenizer.file {file} and data.tokenizer.model are two tokenizers; give one of them"
            )
        self._vocab_size = vocab_size
        self._given = file is not None or model is not None
        self._library: Library | None = None
        if file is not None:
            self._library = _loaded(f"--data.tokenizer.file {file}", _content(file))
            self._vocab_size = max(vocab_size, _size(self._library))
        if model is not None:
            self._library = _loaded("data.tokenizer.model", model.encode("utf-8"))
            if _size(self._library) > vocab_size:
                raise ValueError(
                    f"data.tokenizer.model has {_size(self._library)} ids, but data.tokenizer.vocab_size is "
                    f"{vocab_size}; leave both as the checkpoint has them"
                )

    @property
    def init_args(self) -> dict[str, Any]:
        return {"vocab_size": self._vocab_size, "model": self.learnt}

    @property
    def learnt(self) -> str | None:
        return None if self._library is None else str(self._library.to_str())

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    def train(self, texts: Callable[[], Iterable[str]]) -> None:
        """Learns the pieces from a split, unless a file or a model was given."""
        if self._given:
            return
        library = Library(models.BPE())
        # A space before the first word would come back with the text.
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        library.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self._vocab_size,
            min_frequency=LEAST_COUNT,
            show_progress=False,
            special_tokens=list(SPECIALS),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        )
        library.train_from_iterator((_clean(text) for text in texts()), trainer)
        self._library = _as_text(library)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._trained().encode(_clean(text), add_special_tokens=False).ids
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        found = self._trained().encode_batch([_clean(text) for text in texts], add_special_tokens=False)
        return [each.ids for each in found]

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._trained().decoder.decode([piece for token in ids for piece in self.pieces(token)])
        return text

    def stream(self) -> TextStream:
        return _PieceStream(self)

    def pieces(self, token: int) -> list[str]:
        """What an id stands for, as the library writes bytes; nothing for a special or unused one."""
        piece = None if token < len(SPECIALS) else self._trained().id_to_token(token)
        return [] if piece is None else [piece]

    def __reduce__(self) -> tuple[Any, ...]:
        # The library does not keep every setting when it is pickled.
        return (_rebuilt, (self.init_args,))

    def _trained(self) -> Library:
        if self._library is None:
            raise ValueError(
                "the BPE tokenizer has learnt nothing yet; train it on texts first, or name a tokenizer.json with "
                "--data.tokenizer.file"
            )
        return self._library


class _PieceStream(TextStream):
    """Holds back pieces that end within a character."""

    def __init__(self, tokenizer: BPE) -> None:
        self._tokenizer = tokenizer
        self._held: list[int] = []

    def feed(self, token: int) -> str:
        self._held.append(token)
        text = self._tokenizer.decode(self._held)
        # What is no text, or not yet.
        return "" if text.endswith("\ufffd") else self._given_out(text)

    def finish(self) -> str:
        return self._given_out(self._tokenizer.decode(self._held))

    def _given_out(self, text: str) -> str:
        self._held = []
        return text


def _content(file: str) -> bytes:
    """The bytes of a tokenizer.json.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read.
    """
    path = Path(file).expanduser()
    try:
        if path.is_file():
            return path.read_bytes()
    except OSError as error:
        raise ValueError(f"--data.tokenizer.file {file}: {error.strerror}; make it readable") from error
    raise FileNotFoundError(
        f"--data.tokenizer.file {file}: there is no such file; name a tokenizer.json, or leave the option away to "
        "learn one"
    )


def _loaded(place: str, content: bytes) -> Library:
    """The tokenizer a tokenizer.json describes.

    Raises:
        ValueError: it is none that can be used here.
    """
    try:
        library = Library.from_buffer(content)
    except Exception as error:  # the library raises no class of its own
        raise ValueError(
            f"{place} is no tokenizer.json of the tokenizers library ({error}); save one with its Tokenizer.save"
        ) from error
    described = json.loads(content)
    kinds = [(described.get(part) or {}).get("type") for part in ("model", "decoder")]
    if kinds != ["BPE", "ByteLevel"] or set(pre_tokenizers.ByteLevel.alphabet()) - library.get_vocab().keys():
        raise ValueError(f"{place} is no byte-level BPE with all 256 bytes; train one, or leave the option away")
    # Where the ids of a file do not agree with each other, the library makes its own of them.
    special = {added["id"]: added["content"] for added in described.get("added_tokens") or () if added["special"]}
    ids = range(len(SPECIALS))
    if tuple(map(special.get, ids)) != SPECIALS or tuple(map(library.id_to_token, ids)) != SPECIALS:
        raise ValueError(
            f"{place}: its ids 0, 1 and 2 are not the special tokens {', '.join(SPECIALS)}; train it with these three "
            "first, in this order"
        )
    _check_ids(place, library.get_vocab())
    library.no_truncation()
    library.no_padding()
    _as_text(library)
    if library.decoder.decode(library.encode(PROBE, add_special_tokens=False).tokens) != PROBE:
        raise ValueError(
            f"{place} does not give a text back as it was; train it with the pre-tokenizer ByteLevel, without a space "
            "before the first word, and without a normalizer"
        )
    return library


def _check_ids(place: str, vocab: dict[str, int]) -> None:
    ids = set(vocab.values())
    if len(ids) < len(vocab):
        raise ValueError(f"{place} gives some id twice; each must stand for one piece")
    # A model has weights for each id, used or not.
    if max(ids) >= 2 * len(ids):
        raise ValueError(
            f"{place} has {max(ids) + 1} ids, but only {len(ids)} pieces; number its pieces without large gaps"
        )


def _as_text(library: Library) -> Library:
    """The tokenizer, set to read the spelling of a special token in a text as any other text."""
    library.encode_special_tokens = True
    return library


def _size(library: Library) -> int:
    return int(max(library.get_vocab().values())) + 1


def _clean(text: str) -> str:
    """The text, with U+FFFD for what was no UTF-8 on the command line, which Python keeps as lone surrogates."""
    return text if text.isascii() else text.encode("utf-8", errors="surrogateescape").decode("utf-8", errors="replace")


def _rebuilt(init_args: dict[str, Any]) -> BPE:
    return BPE(**init_args)
