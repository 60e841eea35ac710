"""The splits of a corpus."""

import hashlib
from typing import NamedTuple

from lightning_xt.data.files.file_digests import hash_file
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
