"""Models that tests build from a config are parsed once and copied: a parse costs ten times a short fit."""

import copy
import os
from pathlib import Path
from typing import Any

import torch

from lightning_xt.training import config_parser, module
from lightning_xt.training.from_config import build

BUILT: dict[Any, tuple[Any, torch.Tensor]] = {}
"""Built modules, and the states of the random numbers after building, by all inputs of the build."""


def build_once(module_class: type, config: Any, vocab: dict[str, int | None]) -> Any:
    """Return the module of `from_config.build`; a copy if it has been built with the same random numbers."""
    if not isinstance(config, dict):
        return build(module_class, config, vocab)
    device = torch.empty(0).device
    key = module_class, repr(config), repr(vocab), str(device), torch.get_rng_state().numpy().tobytes()
    if key not in BUILT:
        made = build(module_class, config, vocab)
        BUILT[key] = made, torch.get_rng_state()
    made, state = BUILT[key]
    torch.set_rng_state(state)
    return copy.deepcopy(made)


def install() -> None:
    """Have `from_config` use it, and the commands of one process share the nested options that they parse."""
    module.build = build_once
    share_parses()


def has_modules() -> bool:
    """Return whether the current folder has modules or packages."""
    with os.scandir() as entries:
        return any(each.name.endswith(".py") or os.path.exists(f"{each.name}/__init__.py") for each in entries)


def share_parses() -> None:
    """Keep parsed options from one parse to the next, in all folders without modules."""
    config_parser._PARSED.set({})
    config_parser.getcwd = lambda: str(Path.cwd()) if has_modules() else ""
