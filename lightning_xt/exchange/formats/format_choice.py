"""The export formats."""

import importlib
import pkgutil
from typing import cast

from lightning_xt.exchange import formats
from lightning_xt.exchange.formats.base import ExportFormat
from lightning_xt.system.discovery import find_variants
from lightning_xt.system.messages import UserError, explain_unknown


def list_formats() -> list[ExportFormat]:
    """List the formats, by name."""
    for module in pkgutil.iter_modules(formats.__path__, f"{formats.__name__}."):
        importlib.import_module(module.name)
    found = (cast(ExportFormat, kind()) for kind in find_variants(ExportFormat))
    return sorted(found, key=lambda each: each.name)


def find_format(name: str) -> ExportFormat:
    """Return the format of a name; UserError if there is none."""
    known = {each.name: each for each in list_formats()}
    if name not in known:
        raise UserError(f"--format: {explain_unknown('format', name, known)}")
    return known[name]
