"""JSON that every reader accepts."""

import json
import math
from typing import Any


def to_json(value: Any, *, indent: int | None = None, ascii_only: bool = False) -> str:
    """Return a value as JSON: NaN and infinity become null, other objects than JSON has become their text.

    Args:
        value: the value.
        indent: spaces per level. None = one line.
        ascii_only: whether other characters than ASCII are written as escapes.
    """
    return json.dumps(_to_plain(value), indent=indent, ensure_ascii=ascii_only, allow_nan=False)


def _to_plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _to_plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
