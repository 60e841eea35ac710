"""Complete description of a model of this package in a `config.json`, and the model built from it again.

The description comes from files of strangers. It is checked as the contents of a checkpoint are, and the classes it
names are imported through the same gate; see `system.imports`.
"""

from collections.abc import Mapping
from typing import Any

from jsonargparse import ArgumentError

from lightning_xt.checkpoints.checkpoint_schema import find_misfit
from lightning_xt.checkpoints.migrations import METADATA_KEY, migrate
from lightning_xt.system.discovery import import_path, init_parameters
from lightning_xt.system.messages import UserError
from lightning_xt.training.from_config import import_class, instantiate
from lightning_xt.training.module import TransformerModule
from lightning_xt.training.parse_errors import explain_class_option, explain_parse_error
from lightning_xt.training.run_metadata import run_metadata

CLASS, OPTIONS = "class_path", "init_args"


def describe_model(module: TransformerModule) -> dict[str, Any]:
    """Return the description of a model: its class, options, tokenizers, trained length, and the versions."""
    options = {name: value for name, value in module.hparams.items() if not name.startswith("_")}
    facts = {**run_metadata(module, module.tokenizers), "trained_length": module.trained_length}
    return {**facts, CLASS: import_path(type(module)), OPTIONS: options}


def build_model(place: str, entry: Any) -> TransformerModule:
    """Build the model of a description, with new weights and with its tokenizers.

    Args:
        place: the file of the description, for messages.
        entry: the description.

    Raises:
        UserError: it is malformed, or of another version, names a class that may not be imported, or is refused.
    """
    if not isinstance(entry, Mapping) or not entry.get(OPTIONS) or not isinstance(entry.get(CLASS), str):
        raise UserError(f"{place}: {METADATA_KEY} has no class_path and init_args of a model; export the model again")
    facts = {name: value for name, value in entry.items() if name not in (CLASS, OPTIONS)}
    contents = {"hyper_parameters": entry[OPTIONS], METADATA_KEY: facts}
    if reason := find_misfit(contents):
        raise UserError(f"{place} cannot be read: {reason}; export the model again")
    try:
        migrate(contents)
        kind = import_class("the model", entry[CLASS], TransformerModule)
        options = dict(contents["hyper_parameters"])
        if unknown := options.keys() - init_parameters(kind).keys():
            raise ValueError(f"model: {explain_class_option(min(unknown), kind)}")
        module: TransformerModule = instantiate(kind, options)
        module.on_load_checkpoint(contents)
    except Exception as error:
        reason = " ".join(str(error).split())
        if isinstance(error, ArgumentError):
            reason = explain_parse_error(str(error).replace('"module.', '"model.'), ())
        raise UserError(f"{place} cannot be read as a model of lightning-xt: {reason}") from error
    return module
