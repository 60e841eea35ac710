"""Names of the package: a class is one if its file is named for it, such as `ALiBi` of `nn/positions/alibi.py`."""

import functools
import importlib
import re
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
PLACES = (
    "core/inputs", "core/cache", "core/trace", "core/keys_values", "models/*", "nn/*/*", "objectives/*",
    "objectives/auxiliaries/*", "generation/filters/*", "generation/methods/*", "data/*", "data/text/*", "data/pairs/*",
    "data/chat/*", "data/probes/*", "data/tokenizers/*", "data/denoisers/*", "training/language_model",
    "training/masked_language_model", "training/seq2seq",
    "training/callbacks/*", "training/loggers/*", "training/optim/*", "training/optim/orthogonalizers/*",
    "training/optim/schedules/*", "training/strategies/*",
)  # fmt: skip
"""Files whose classes are names of the package."""
FUNCTIONS = {
    "generate": "lightning_xt.generation.engine",
    "compute_attention_maps": "lightning_xt.inference.attention_maps",
    "compute_token_losses": "lightning_xt.inference.token_losses",
}


def find_public(name: str) -> Any:
    """Import the class or the function of a name; AttributeError if there is none."""
    file = _list_files().get(name.lower()) if name[:1].isupper() else None
    home = FUNCTIONS.get(name) if file is None else ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)
    found = None if home is None else getattr(importlib.import_module(home), name, None)
    if found is None:
        # Python adds what may have been meant, from `dir`; the parser asks for thousands of names that are not here.
        raise AttributeError(f"lightning_xt has no {name!r}; dir(lightning_xt) lists its names")
    return found


@functools.cache
def list_public() -> list[str]:
    """List the names, without imports."""
    found = [
        name
        for stem, file in _list_files().items()
        for name in re.findall(r"^class (\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
        if name.lower() == stem
    ]
    return sorted([*found, *FUNCTIONS])


@functools.cache
def _list_files() -> dict[str, Path]:
    """List the files by the class that each may hold, in small letters."""
    return {file.stem.replace("_", ""): file for place in PLACES for file in PACKAGE.glob(f"{place}.py")}
