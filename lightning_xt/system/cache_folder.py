"""The folder of the user's cache. Imports nothing that takes time."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder for files that this package can make again."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "lightning-xt"
