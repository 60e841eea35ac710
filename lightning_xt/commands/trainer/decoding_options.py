"""Options that only some of the Trainer's commands use."""

import re
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.system.messages import UserError

USERS = MappingProxyType(
    {
        "output": ("predict",),
        "sampling": ("predict", "validate", "test"),
        "inference": ("predict", "validate", "test"),
        "init_from": ("fit",),
        "validate_every": ("fit",),
        "checkpoint_every": ("fit",),
        "keep_checkpoints": ("fit",),
        "sample_text": ("fit",),
        "non_finite": ("fit",),
    }
)
"""Commands that use an option. In a config, which serves all commands, the others ignore it."""


SHORT = ("weights", "group_size")
"""Options of `inference` that a model uses in every evaluation, and that may be given by their names alone."""


def expand_names(command: str, args: Sequence[str]) -> list[str]:
    """Return the options with the full names of those that `generate` has by the same short names."""
    if command == "fit":
        return list(args)
    return [re.sub(rf"^--({'|'.join(SHORT)})(?==|$)", r"--inference.\1", each) for each in args]


def shorten_names(sentence: str, args: Sequence[str]) -> str:
    """Return a sentence with the names of options as they were typed."""
    for name in SHORT:
        if any(each.partition("=")[0] == f"--{name}" for each in args):
            sentence = sentence.replace(f"--inference.{name}", f"--{name}")
    return sentence


def list_unused(command: str) -> list[str]:
    """List the options that a command does not use."""
    return [name for name, users in USERS.items() if command not in users]


def choose_decoding(command: str, args: Sequence[str], model: Any, sampling: GenerationOptions) -> None:
    """Let an evaluation that decodes do so by the options of generation.

    Raises:
        UserError: the command line has an option that the command does not use.
        ValueError: an evaluation would lose sequences.
    """
    decodes = command == "predict" or getattr(model, "decodes_evaluations", False)
    for typed in args:
        option = typed.partition("=")[0]
        if not option.startswith("--"):
            continue
        name = option.removeprefix("--").partition(".")[0].removesuffix("+")
        users = USERS.get(name, (command,))
        if command not in users:
            listed = " and ".join(filter(None, (", ".join(users[:-1]), users[-1])))
            raise UserError(f"{command} does not use {option}, an option of {listed}; omit it")
        if name in ("sampling", "inference") and not decodes and option.rpartition(".")[2] not in SHORT:
            raise UserError(
                f"{command} does not use {option}: a {type(model).__name__} is measured without decoding; omit it, or "
                "give it to predict"
            )
    if command in ("validate", "test") and decodes:
        model.sampling = sampling.require_single(f"{command} measures")
