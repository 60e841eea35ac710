"""Folders of exported steps: the tokenizer, and a JSON file about the programs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning_xt
from lightning_xt.exchange.exported_model import ExportedModel
from lightning_xt.exchange.folders.json_files import write_json
from lightning_xt.exchange.step.step_program import StepProgram
from lightning_xt.exchange.tokenizers.exported_tokenizers import write_tokenizers

DESCRIPTION = "step.json"
"""File about the programs of a folder."""


def write_description(model: ExportedModel, programs: Sequence[StepProgram], suffix: str, folder: Path) -> None:
    """Write `step.json` and the tokenizers of the programs `NAME.suffix` of a folder."""
    described = {
        "written_by": f"lightning-xt {lightning_xt.__version__}",
        "model": model.kind,
        "capacity": model.max_length,
        "programs": {
            each.name: {
                "file": f"{each.name}.{suffix}",
                "inputs": [port.describe() for port in each.inputs],
                "outputs": [port.describe() for port in each.outputs],
                "limits": {name: {"least": least, "most": most} for name, (least, most) in each.limits.items()},
            }
            for each in programs
        },
        "tokenizers": _write_tokenizers(model, folder),
    }
    write_json(folder / DESCRIPTION, described)


def _write_tokenizers(model: ExportedModel, folder: Path) -> dict[str, dict[str, Any]]:
    """Write the tokenizers, and return their files and special ids by use."""
    found: dict[str, dict[str, Any]] = {}
    for use, tokenizer, own, _ in write_tokenizers(model, folder, apart=True):
        place = folder / own
        files = [each for each in ("tokenizer.json", tokenizer.saved_name) if (place / each).is_file()]
        found[use] = {
            "class": type(tokenizer).__name__,
            "file": str((place / files[0]).relative_to(folder)) if files else None,
            "vocab_size": tokenizer.vocab_size,
            **{name: getattr(tokenizer, name) for name in ("pad", "start", "end")},
            "unused": list(tokenizer.unused),
        }
    return found
