"""The splits of a corpus."""

import hashlib
from pathlib import Path
from typing import NamedTuple

from lightning_xt.data.files.file_digests import hash_file
from lightning_xt.data.files.reading import named_errors
from lightning_xt.data.text.mapped_tokens import MappedTokens


class Splits(NamedTuple):
    """The tokens of each split.

    Args:
        train: tokens for training.
        validation: tokens for validation; None if there is no validation split.
        test: tokens for testing; None if there is no test split.
    """

    train: MappedTokens
    validation: MappedTokens | None
    test: MappedTokens | None

    @property
    def hash(self) -> str:
        """SHA-256 of the splits' content, as a hex digest, independent of the files' paths.

        The hash of each file is cached.
        """
        files = {part.path for part in self if part is not None}
        hashes = {path: hash_file(path) for path in files}
        parts = [None if part is None else (hashes[part.path], part.start, part.stop) for part in self]
        return hashlib.sha256(repr(list(zip(self._fields, parts, strict=True))).encode()).hexdigest()

    def at_characters(self) -> "Splits":
        """Return the splits of bytes of a UTF-8 text, with each cut moved before the character that it divides."""
        parts = (None if part is None else _cut_at_characters(part) for part in self)
        return Splits(*parts)  # type: ignore[arg-type]


def _cut_at_characters(part: MappedTokens) -> MappedTokens:
    return MappedTokens(part.path, _find_character(part.path, part.start), _find_character(part.path, part.stop))


def _find_character(path: Path, cut: int) -> int:
    """Return the start of the character that a cut divides, else the cut."""
    first = max(0, cut - 3)
    with named_errors(path), open(path, "rb") as file:
        file.seek(first)
        around = file.read(cut - first + 1)
    # The bytes of a character after its first are 10xxxxxx.
    starts = [first + place for place, byte in enumerate(around) if byte & 0xC0 != 0x80]
    return starts[-1] if len(around) > cut - first and starts else cut
