"""Checkpoint formats, and the place of migrations between them. Needs no Lightning."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import lightning_xt

METADATA_KEY = "lightning_xt"
"""Key of a checkpoint under which lightning-xt keeps its own entries."""
CHECKPOINT_FORMAT = 2
"""Number of today's format. Raise it when older checkpoints cannot be read as they are, and add to `MIGRATIONS`."""
MIGRATIONS: Mapping[int, Callable[[dict[str, Any]], None]] = MappingProxyType({})
"""For each older format that is still read, the function that brings contents to the next format in place.

It must not change tensors, which may lie in the file. No format has been released yet, so there is none.
"""


def migrate(contents: dict[str, Any]) -> None:
    """Bring a checkpoint's contents to today's format, in place. Contents of other programs stay as they are.

    Raises:
        ValueError: another version wrote the checkpoint, in a format that is not read here.
    """
    metadata = contents.get(METADATA_KEY)
    if not isinstance(metadata, dict) or "format" not in metadata:
        return
    found = metadata["format"]
    if not isinstance(found, int) or not (found == CHECKPOINT_FORMAT or found in MIGRATIONS):
        raise ValueError(
            f"the checkpoint has format {found!r}, but lightning-xt {lightning_xt.__version__} reads format "
            f"{CHECKPOINT_FORMAT}; it was written by version {metadata.get('version')}: use that version, or train "
            "again"
        )
    for number in range(found, CHECKPOINT_FORMAT):
        MIGRATIONS[number](contents)
        contents[METADATA_KEY] = {**contents[METADATA_KEY], "format": number + 1}
