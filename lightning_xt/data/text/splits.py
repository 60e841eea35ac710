"""The parts of a corpus."""

import hashlib
from typing import NamedTuple

from lightning_xt.data.files.file_digests import file_hash
from lightning_xt.data.text.mapped_bytes import MappedBytes


class Splits(NamedTuple):
    """The tokens of each part of a corpus.

    Args:
        train: what is trained on.
        validation: what is measured during training; None where the options ask for none.
        test: what is measured at the end; None where the options ask for none.
    """

    train: MappedBytes
    validation: MappedBytes | None
    test: MappedBytes | None

    @property
    def hash(self) -> str:
        """SHA-256, as hex digest, of what the splits hold, wherever their files lie.

        The hash of each file is remembered, so that asking again costs no reading.
        """
        files = {part.path for part in self if part is not None}
        hashes = {path: file_hash(path) for path in files}
        parts = [None if part is None else (hashes[part.path], part.start, part.stop) for part in self]
        return hashlib.sha256(repr(list(zip(self._fields, parts, strict=True))).encode()).hexdigest()
