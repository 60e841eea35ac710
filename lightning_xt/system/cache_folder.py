"""The folder of the user's cache. Imports nothing that takes time."""

import os
from pathlib import Path

from lightning_xt.system.files import expand_home


def cache_folder() -> Path:
    """Return the folder for files that this package can make again."""
    chosen = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return expand_home(chosen, f"XDG_CACHE_HOME={chosen}") / "lightning-xt"
