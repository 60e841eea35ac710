"""Disk space that checkpoints need."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def count_bytes(content: Any) -> int:
    """Count the bytes that the tensors of nested mappings and lists take in a file. Shared storage counts once."""
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


def format_bytes(size: int) -> str:
    """Format a number of bytes in megabytes."""
    return f"{size / 1e6:,.1f} MB"
