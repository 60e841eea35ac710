"""Import of a model from a folder of `transformers`, or of an export of this package. Nothing in it is executed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_xt.checkpoints.migrations import METADATA_KEY
from lightning_xt.exchange.imported_tokenizer import ImportedTokenizer, read_tokenizer
from lightning_xt.exchange.own_folder import read_own_folder
from lightning_xt.exchange.pretrained.base import PretrainedShape, UnsupportedSettingError
from lightning_xt.exchange.pretrained.shape_choice import list_shapes
from lightning_xt.exchange.safetensors_files import read_tensors
from lightning_xt.exchange.templates import fill_template
from lightning_xt.exchange.tensor_rules import TensorMisfitError, import_tensors
from lightning_xt.system.discovery import import_path
from lightning_xt.system.messages import UserError
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.module import TransformerModule
from lightning_xt.training.seq2seq import Seq2Seq

KINDS: dict[str, type[LanguageModel | Seq2Seq]] = {"LanguageModel": LanguageModel, "Seq2Seq": Seq2Seq}
TRAINED_ROW = 256
"""Tokens of a row in the config of an imported language model."""


@dataclass
class ImportedModel:
    """Model of another library, as a module of this package.

    Args:
        label: name of its architecture.
        module: the model.
        data: config of data on which the model can be measured and trained.
        files: contents of files for the folder of its run, by name.
        remarks: sentences for the user.
    """

    label: str
    module: TransformerModule
    data: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def read_folder(folder: Path) -> ImportedModel:
    """Read a folder.

    Raises:
        UserError: a file is missing or malformed, the model has no counterpart here, or its tensors do not fit.
    """
    config = read_json(folder / "config.json")
    if METADATA_KEY in config:
        return _read_own(folder, config)
    shape = _find_shape(folder, config)
    try:
        settings = shape.read_config(config)
        options = fill_template(shape.template, settings)
    except UnsupportedSettingError as error:
        raise UserError(f"{folder} is a {shape.label} that has no counterpart here: {error}") from error
    except KeyError as error:
        raise UserError(f"{folder / 'config.json'} has no {error.args[0]}, which a {shape.label} needs") from error
    size = require_count(folder, config, "vocab_size")
    tokenizer = read_tokenizer(folder, config, size)
    sizes: dict[str, int | None] = {"source": size, "target": size, **tokenizer.ids, "separator": None}
    try:
        module = KINDS[shape.kind].from_config({**options, "vocab": sizes})
    except ValueError as error:
        raise UserError(f"{folder} is a {shape.label} that is refused here: {error}") from error
    try:
        import_tensors(module.network, shape.list_rules(settings), read_tensors(folder))
    except TensorMisfitError as error:
        raise UserError(f"{folder}: {error}") from error
    longest = config.get(shape.length_setting)
    _restore(module, tokenizer, longest if isinstance(longest, int) else None)
    data = _make_data(shape.kind == "Seq2Seq", tokenizer.config, longest)
    return ImportedModel(shape.label, module.eval(), data, tokenizer.files, tokenizer.remarks)


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON mapping; UserError if there is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{file.parent} has no {file.name}; give a folder that transformers has saved") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}); copy the folder again") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} holds a {type(content).__name__}, not a mapping; copy the folder again")
    return content


def require_count(folder: Path, config: Mapping[str, Any], name: str) -> int:
    """Return a setting that is a number of at least 1; UserError if it is not."""
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{folder / 'config.json'}: {name} is {value!r}; it must be a whole number of at least 1")
    return value


def _find_shape(folder: Path, config: Mapping[str, Any]) -> PretrainedShape:
    shapes = {shape.model_type: shape for shape in list_shapes()}
    found = config.get("model_type")
    if found not in shapes:
        names = ", ".join(shapes)
        raise UserError(f"{folder} has the model_type {found!r}, which has no counterpart here; there is {names}")
    shape = shapes[found]
    classes = config.get("architectures") or [shape.architecture]
    if shape.architecture not in classes:
        raise UserError(
            f"{folder} is a {classes[0]}; of {shape.label} only {shape.architecture} has a counterpart here"
        )
    return shape


def _restore(module: TransformerModule, tokenizer: ImportedTokenizer, longest: int | None) -> None:
    """Give a module the tokenizers and the length of its training."""
    made = {"class_path": import_path(type(tokenizer.tokenizer)), "init_args": tokenizer.tokenizer.init_args}
    known = {"tokenizers": dict.fromkeys(module.tokenizers, made), "trained_length": longest}
    module.on_load_checkpoint({METADATA_KEY: known})


def _read_own(folder: Path, config: Mapping[str, Any]) -> ImportedModel:
    """Read a folder that an export of this package has written."""
    module = read_own_folder(folder, config)
    tokenizer = list(module.tokenizers.values())[-1]
    options = {name: value for name, value in tokenizer.init_args.items() if name not in ("model", "specials")}
    made, files = {"class_path": import_path(type(tokenizer)), "init_args": options}, dict[str, bytes]()
    if (content := tokenizer.saved_content) is not None:
        options["file"] = tokenizer.saved_name
        files[tokenizer.saved_name] = content
    data = _make_data(isinstance(module, Seq2Seq), made, module.trained_length)
    return ImportedModel(type(module).__name__, module, data, files)


def _make_data(pairs: bool, tokenizer: dict[str, Any], longest: Any) -> dict[str, Any]:
    """Return a config of data that the model reads: pairs or text."""
    if pairs:
        return {"class_path": "Multi30k", "init_args": {"tokenizer": tokenizer, "shared_tokenizer": True}}
    length = min(TRAINED_ROW, longest) if isinstance(longest, int) else TRAINED_ROW
    return {"class_path": "StandardLibrary", "init_args": {"tokenizer": tokenizer, "seq_len": length}}
