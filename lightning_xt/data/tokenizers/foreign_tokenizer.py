"""Base class of tokenizers whose files other programs wrote."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Self

from lightning_xt.data.files.reading import read_whole
from lightning_xt.data.tokenizers.base import Specials, TextStream, Tokenizer
from lightning_xt.data.tokenizers.piece_decoder import PieceDecoder, PieceStream


class ForeignTokenizer(Tokenizer):
    """Base of the tokenizers that read a file of another program, whose content checkpoints hold.

    Args:
        file: the file.
        pad: the special token that fills batches of pairs. None = the usual one of the file, if it has one; an empty
            text = none.
        start: the special token that opens a text in pairs. None = likewise, else the end token.
        end: the special token that ends a text, and that opens each document of a long text. None = likewise.
        padded_size: number of ids if the model's tables have more than the file; the others stand for nothing. None =
            those of the file.
        model: the content of the file as text, as a checkpoint stores it.
        specials: the special ids in use: `pairs` = all three; `documents` = the end id, which opens each document of a
            long text and ends the one before; `none`. Corpora set it.
    """

    specials: Specials
    wanted: ClassVar[str]
    """The kind of file, for messages."""
    _decoder: PieceDecoder
    _changes: str | None
    """Description of the texts that decoding does not restore; None = it restores all."""

    def __init__(
        self,
        file: str | None = None,
        *,
        pad: str | None = None,
        start: str | None = None,
        end: str | None = None,
        padded_size: int | None = None,
        model: str | None = None,
        specials: Specials = "pairs",
    ) -> None:
        if file is not None and model is not None:
            raise ValueError(
                f"--data.tokenizer.file {file} and --data.tokenizer.model are two tokenizers; give one of them"
            )
        if model is not None:
            self._place, content = "--data.tokenizer.model", self._unpack(model)
        elif file is not None:
            self._place = f"--data.tokenizer.file {file}"
            content = read_whole("--data.tokenizer.file", file, self.wanted)
        else:
            raise ValueError(f"{type(self).__name__} needs --data.tokenizer.file, {self.wanted}")
        self._names = {"pad": pad, "start": start, "end": end}
        self._padded_size = padded_size
        self._read(content)
        if padded_size is not None and padded_size < (size := self._count_ids()):
            raise ValueError(
                f"--data.tokenizer.padded_size is {padded_size}, but {self._place} has {size} ids; it must be at least "
                "as many"
            )
        self._use_specials(specials)

    @abstractmethod
    def _unpack(self, state: str) -> bytes:
        """Return the content of the file from the text in a checkpoint."""

    @abstractmethod
    def _read(self, content: bytes) -> None:
        """Read the content of a file; ValueError if it is malformed or unsupported."""

    @abstractmethod
    def _count_ids(self) -> int:
        """Return the number of ids of the file."""

    @abstractmethod
    def _use_specials(self, specials: Specials) -> None:
        """Set the special ids in use."""

    @property
    def init_args(self) -> dict[str, Any]:
        given = {**self._names, "padded_size": self._padded_size}
        return {**given, "model": self.trained_state, "specials": self.specials}

    @property
    def vocab_size(self) -> int:
        return self._count_ids() if self._padded_size is None else self._padded_size

    def for_text(self, separated: bool) -> Self:
        return self._copy("documents" if separated else "none")

    def for_examples(self) -> Self:
        # The start id of a published model opens its prompts.
        return self._copy("pairs")

    def _copy(self, specials: Specials) -> Self:
        # A copy shares the library, which takes long to load. `copy.copy` would load it, by __reduce__.
        made = type(self).__new__(type(self))
        made.__dict__.update(self.__dict__)
        made._use_specials(specials)
        return made

    def restore(self, state: str) -> None:
        self._read(self._unpack(state))
        self._use_specials(self.specials)

    def describe_changes(self) -> str | None:
        return self._changes

    def decode(self, ids: Sequence[int]) -> str:
        return self._decoder.decode(ids)

    def spell(self, token: int) -> str:
        # At the beginning of a text a piece may lose its space.
        found = self._decoder.spell(token, first=False)
        return "" if found is None else found.inside.decode("utf-8", "replace")

    def stream(self) -> TextStream:
        return PieceStream(self._decoder)

    def __reduce__(self) -> tuple[Any, ...]:
        # The libraries lose settings when they are pickled.
        return (partial(type(self), **self.init_args), ())
