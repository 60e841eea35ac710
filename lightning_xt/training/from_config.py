"""Building of models from configs, as the command line does."""

import os
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import ArgumentError
from lightning.pytorch import LightningModule

# What LightningCLI itself uses; it makes a module remember the config it was built from instead of live objects.
from lightning.pytorch.cli import instantiate_module
from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters_context

from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.system.discovery import import_path, init_parameters
from lightning_xt.system.free_memory import refuse_without_memory
from lightning_xt.system.imports import NotAllowedError, find, guarded_imports
from lightning_xt.system.messages import find_own_sentence
from lightning_xt.system.shipped_configs import find_config
from lightning_xt.training.config_parser import ConfigParser
from lightning_xt.training.option_values import check_values
from lightning_xt.training.parse_errors import explain_class_option, explain_parse_error

ModuleT = TypeVar("ModuleT", bound=LightningModule)


def build(module_class: type[ModuleT], config: dict[str, Any] | str | Path, vocab: dict[str, int | None]) -> ModuleT:
    """Build the model of a config, with the given vocabulary unless it names one; see `training.module`."""
    options = _options(config)
    for name in options:
        if name.partition(".")[0] not in init_parameters(module_class):
            raise ValueError(f"--model: {explain_class_option(name, module_class)}")
    options.setdefault("vocab", dict(vocab))
    parser = ConfigParser(exit_on_error=False)
    parser.add_class_arguments(module_class, "model", fail_untyped=False)
    try:
        with guarded_imports():
            parsed = parser.parse_object({"model": options})
    except ArgumentError as error:
        raise ValueError(find_own_sentence(error) or explain_parse_error(str(error), ())) from error
    plain = yaml.safe_load(parser.dump(parsed, skip_link_targets=False, skip_none=False, format="yaml"))["model"]
    check_values({"class_path": import_path(module_class), "init_args": plain}, "model")
    return instantiate(module_class, plain)


def instantiate(module_class: type[ModuleT], options: dict[str, Any]) -> ModuleT:
    """Build a module that remembers its options, plain values for all of its parameters, as the command line does."""
    remembered = {"_class_path": import_path(module_class), **options}
    instantiator = "lightning.pytorch.cli.instantiate_module"
    with guarded_imports(), _given_hyperparameters_context(remembered, instantiator), refuse_without_memory():
        return instantiate_module(module_class, options)


def build_tokenizer(config: dict[str, Any]) -> Tokenizer:
    """Build a tokenizer that a checkpoint names; ValueError if its class may not be imported, or is not a tokenizer."""
    made: Tokenizer = import_class("the checkpoint's tokenizer", config["class_path"], Tokenizer)(
        **config.get("init_args", {})
    )
    return made


def import_class(owner: str, path: str, base: type) -> Any:
    """Import the class of an owner that a checkpoint names; ValueError if it may not be, or does not extend the base.

    A function is refused before it can be called.
    """
    try:
        found = find(path)
    except NotAllowedError as error:
        raise ValueError(f"{owner}: {error}") from error
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{owner} {path} cannot be imported ({error}); it was looked for in {os.getcwd()} and the installed "
            "packages: run the command in the folder of its module, or install that"
        ) from error
    if not isinstance(found, type) or not issubclass(found, base):
        raise ValueError(f"{owner} {path} is not a {base.__name__}")
    return found


def _options(config: dict[str, Any] | str | Path) -> dict[str, Any]:
    """Read the constructor's options from each of the three forms of a config."""
    if isinstance(config, (str, Path)):
        path = find_config(config)
        if not path.is_file():
            raise FileNotFoundError(f"from_config: {path}: there is no such file; give a YAML file or a dict")
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise ValueError(f"from_config: a config is a mapping of options, not {type(config).__name__}")
    options = config.get("model", config)
    if "class_path" in options or "init_args" in options:
        options = options.get("init_args") or {}
    return dict(options)
