"""JSON files of exported folders."""

from pathlib import Path
from typing import Any

from lightning_xt.system.json_text import to_json


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write a mapping as JSON."""
    file.write_text(to_json(content, indent=2) + "\n", encoding="utf-8")
