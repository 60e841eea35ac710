"""Options of a command as plain values."""

import json
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from lightning_xt.training.option_values import PLAIN_JSON


class PlainOptions:
    """Reader of a command's options as plain values, which writes them as text again only once they have changed.

    Args:
        skip_link_targets: whether to omit options that others set.
    """

    def __init__(self, *, skip_link_targets: bool = True) -> None:
        self._skip_link_targets = skip_link_targets
        self._options: Namespace | None = None
        self._text = ""

    def read(self, parser: LightningArgumentParser, options: Namespace) -> dict[str, Any]:
        """Return the options of a parser as new dicts, lists, texts, numbers and None."""
        if self._options != options:
            skip = {"skip_link_targets": self._skip_link_targets, "skip_none": False}
            self._text = parser.dump(options, format=PLAIN_JSON, **skip)
            self._options = options.clone()
        plain: dict[str, Any] = json.loads(self._text)
        return plain
