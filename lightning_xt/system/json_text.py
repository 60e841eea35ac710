"""JSON that every reader accepts."""

import json
import math
import sys
from pathlib import PurePath
from typing import Any


def to_json(value: Any, *, indent: int | None = None, ascii_only: bool = False) -> str:
    """Return a value as JSON: NaN and infinity become null; TypeError for an object that is not data.

    Args:
        value: the value.
        indent: spaces per level. None = one line.
        ascii_only: whether other characters than ASCII are written as escapes.
    """
    return json.dumps(_to_plain(value), indent=indent, ensure_ascii=ascii_only, allow_nan=False)


def _to_plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {_to_plain(name): _to_plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_to_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    # Others than these that JSON lacks raise a TypeError there.
    torch = sys.modules.get("torch")
    if isinstance(value, PurePath) or (torch is not None and isinstance(value, torch.dtype | torch.device)):
        return str(value)
    # Numbers and arrays of NumPy and torch.
    return _to_plain(value.tolist()) if hasattr(value, "tolist") else value
