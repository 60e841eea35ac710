"""How much room checkpoints need, and how much there is."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor


def count_bytes(content: Any) -> int:
    """Bytes that a checkpoint's tensors take in a file; what shares memory counts once, the rest is small.

    Args:
        content: mappings, lists and values.
    """
    found: dict[int, int] = {}
    _collect(content, found)
    return sum(found.values())


def _collect(content: Any, found: dict[int, int]) -> None:
    if isinstance(content, Tensor):
        storage = content.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
    elif isinstance(content, Mapping):
        for each in content.values():
            _collect(each, found)
    elif isinstance(content, (list, tuple)):
        for each in content:
            _collect(each, found)


def free_bytes(folder: Path) -> int:
    """Bytes that may still be written into a folder that is there."""
    return shutil.disk_usage(folder).free


def format_bytes(size: int) -> str:
    """A number of bytes in megabytes."""
    return f"{size / 1e6:,.1f} MB"
