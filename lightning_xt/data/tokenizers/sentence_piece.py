"""SentencePiece models."""

import base64
import binascii
from collections.abc import Sequence
from typing import Any

from lightning_xt.data.tokenizers.base import Specials
from lightning_xt.data.tokenizers.foreign_tokenizer import ForeignTokenizer
from lightning_xt.data.tokenizers.library_files import replace_surrogates
from lightning_xt.data.tokenizers.piece_decoder import PieceDecoder
from lightning_xt.data.tokenizers.restoration import describe_changes
from lightning_xt.data.tokenizers.special_tokens import find_ids


class SentencePiece(ForeignTokenizer):
    """Use a model of the `sentencepiece` library (Kudo and Richardson, 2018, https://arxiv.org/abs/1808.06226).

    The library is an extra, `pip install "lightning-xt[sentencepiece]"`. The spelling of a special token in a text
    stays text. A model may change texts, such as their spaces: it is accepted, and what it does not keep is reported. A
    checkpoint holds the content of the file.

    Args:
        file: the `.model` file.
        pad: the control symbol that fills batches of pairs. None = that of the model, if it has one; an empty text =
            none.
        start: the control symbol that opens a text in pairs. None = likewise, else the end symbol.
        end: the control symbol that ends a text, and that opens each document of a long text. None = likewise.
        padded_size: number of ids if the model's tables have more than the file; the others stand for nothing. None =
            those of the file.
        model: the content of such a file in Base64, as a checkpoint stores it.
        specials: the special ids in use: `pairs` = all three; `documents` = the end id, which opens each document of a
            long text and ends the one before; `none`. Corpora set it.
    """

    saved_name = "tokenizer.model"
    wanted = "a .model file of SentencePiece, such as that in the folder of a run"

    @property
    def trained_state(self) -> str | None:
        """The model in Base64."""
        return base64.b64encode(self._content).decode("ascii")

    @property
    def saved_content(self) -> bytes | None:
        return self._content

    @property
    def unused(self) -> Sequence[int]:
        control = set(self._special.values()) - {self.end}
        own = self._count_ids()
        found = [token for token in range(own) if token in control or self._library.is_unused(token)]
        return [*found, *range(own, self.vocab_size)]

    def encode(self, text: str) -> list[int]:
        return list(self._library.encode(replace_surrogates(text)))

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        # The library encodes a list on all cores.
        return list(self._library.encode([replace_surrogates(text) for text in texts]))

    def _unpack(self, state: str) -> bytes:
        try:
            return base64.b64decode(state, validate=True)
        except binascii.Error as error:
            raise ValueError(f"--data.tokenizer.model is not Base64 ({error}); keep it as in the checkpoint") from error

    def _read(self, content: bytes) -> None:
        """Read a model; ValueError if it is malformed or the library is missing."""
        self._content, self._library = content, _load(self._place, content)
        library = self._library
        tokens = range(library.get_piece_size())
        self._special = {library.id_to_piece(token): token for token in tokens if library.is_control(token)}
        # Only a piece of spaces shows if all at the beginning are removed.
        trims = library.decode(["\u2581", "\u2581", "x"]) == "x"
        self._decoder = PieceDecoder(lambda pieces: str(library.decode(pieces)), self._read_piece, trims=trims)
        self._changes = describe_changes(self._restore) or "it may change rare texts: it is not a BPE of bytes"

    def _count_ids(self) -> int:
        return int(self._library.get_piece_size())

    def _read_piece(self, token: int) -> str | bytes | None:
        library = self._library
        if not 0 <= token < self._count_ids() or library.is_control(token):
            return None
        piece = str(library.id_to_piece(token))
        if library.is_byte(token):
            return bytes([int(piece.removeprefix("<0x").removesuffix(">"), 16)])
        return "\ufffd" if library.is_unknown(token) else piece

    def _restore(self, text: str) -> str | None:
        ids = self.encode(text)
        return None if self._library.unk_id() in ids else self.decode(ids)

    def _use_specials(self, specials: Specials) -> None:
        self.specials = specials
        own = {"pad": self._library.pad_id(), "start": self._library.bos_id(), "end": self._library.eos_id()}
        # A model names its own; -1 means none.
        found = {use: self._library.id_to_piece(token) for use, token in own.items() if token >= 0}
        names = {use: found.get(use) if name is None else name for use, name in self._names.items()}
        self.pad, self.start, self.end = find_ids(self._place, self._special, names, specials)


def _load(place: str, content: bytes) -> Any:
    try:
        import sentencepiece
    except ImportError as error:
        raise ValueError(
            'SentencePiece needs the library sentencepiece; run pip install "lightning-xt[sentencepiece]"'
        ) from error
    try:
        # The library takes an empty file for a model that it has not read yet.
        if not content:
            raise RuntimeError("it is empty")
        return sentencepiece.SentencePieceProcessor(model_proto=content)
    except RuntimeError as error:
        reason = str(error).split("[")[0].strip().rstrip(".")
        raise ValueError(f"{place} is not a model of SentencePiece ({reason}); give its .model file") from error
