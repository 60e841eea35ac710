"""Import of a model from a folder of `transformers`, or of an export of this package. Nothing in it is executed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_xt.checkpoints.migrations import METADATA_KEY
from lightning_xt.exchange.folders.folder_files import check_files, read_json
from lightning_xt.exchange.folders.safetensors_files import read_tensors
from lightning_xt.exchange.imported_model import ImportedModel, build_module, make_data, restore_facts
from lightning_xt.exchange.own_format.own_folder import read_own_folder
from lightning_xt.exchange.pretrained.base import PretrainedShape
from lightning_xt.exchange.pretrained.shape_choice import list_shapes
from lightning_xt.exchange.templates import fill_template
from lightning_xt.exchange.tokenizers.imported_tokenizer import read_tokenizer
from lightning_xt.system.messages import UserError


def read_folder(folder: Path) -> ImportedModel:
    """Read a folder.

    Raises:
        UserError: a file is missing or malformed, the model has no counterpart here, or its tensors do not fit.
    """
    check_files(folder)
    config = read_json(folder / "config.json")
    if METADATA_KEY in config:
        return _read_own(folder, config)
    shape = _find_shape(folder, config)
    tensors = read_tensors(folder)
    _check_depth(folder, shape, config, tensors)
    settings, options = _read_settings(folder, shape, config, tensors)
    size = require_count(folder, config, "vocab_size")
    longest = None if config.get(shape.length_setting) is None else require_count(folder, config, shape.length_setting)
    longest = _limit_length(folder, longest)
    _check_size(folder, size, tensors)
    tokenizer = read_tokenizer(folder, config, size)
    vocab: dict[str, int | None] = {"source": size, "target": size, **tokenizer.ids, "separator": None}
    module = build_module(
        f"{folder}, a {shape.label},",
        shape.kind,
        {**options, "vocab": vocab},
        tensors,
        lambda network: shape.list_rules(settings),
    )
    restore_facts(module, dict.fromkeys(module.tokenizers, tokenizer.tokenizer), longest)
    data, files = make_data(module.tokenizers, longest)
    return ImportedModel(shape.label, module, data, files, tokenizer.remarks)


def require_count(folder: Path, config: Mapping[str, Any], name: str) -> int:
    """Return a setting that is a number of at least 1; UserError if it is not."""
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{folder / 'config.json'}: {name} is {value!r}; it must be a whole number of at least 1")
    return value


def _find_shape(folder: Path, config: Mapping[str, Any]) -> PretrainedShape:
    shapes = {shape.model_type: shape for shape in list_shapes()}
    found = config.get("model_type")
    if not isinstance(found, str) or found not in shapes:
        names = ", ".join(shapes)
        raise UserError(f"{folder} has the model_type {found!r}, which has no counterpart here; there is {names}")
    shape = shapes[found]
    classes = config.get("architectures")
    if isinstance(classes, list) and classes and shape.architecture not in classes:
        raise UserError(
            f"{folder} is a {classes[0]}; of {shape.label} only {shape.architecture} has a counterpart here"
        )
    return shape


def _check_depth(
    folder: Path, shape: PretrainedShape, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Refuse more layers than tensors by a UserError, before lists of layers are made."""
    for name in shape.depth_settings:
        if isinstance(depth := config.get(name), int) and depth > len(tensors):
            raise UserError(
                f"{folder / 'config.json'}: {name} is {depth}, but the weights have {len(tensors)} tensors; they are "
                "of another model"
            )


def _read_settings(
    folder: Path, shape: PretrainedShape, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of a folder, and the options of the model here."""
    try:
        settings = shape.complete_settings(shape.read_config(config), tensors)
        return settings, fill_template(shape.template, settings)
    except ValueError as error:
        raise UserError(f"{folder} is a {shape.label} that has no counterpart here: {error}") from error
    except KeyError as error:
        raise UserError(f"{folder / 'config.json'} has no {error.args[0]}, which a {shape.label} needs") from error
    except Exception as error:
        # Settings of other types than a shape computes with fail in many ways.
        raise UserError(
            f"{folder / 'config.json'} has a setting of another type than that of a {shape.label} ({error}); copy it "
            "again"
        ) from error


def _check_size(folder: Path, size: int, tensors: Mapping[str, Tensor]) -> None:
    if all(size not in each.shape for each in tensors.values()):
        raise UserError(
            f"{folder / 'config.json'}: vocab_size is {size}, but no tensor of the weights has as many rows; copy the "
            "folder again"
        )


def _limit_length(folder: Path, positions: int | None) -> int | None:
    """Return the most tokens of a sequence: those of the positions, or fewer if the tokenizer says so."""
    file = folder / "tokenizer_config.json"
    given = read_json(file).get("model_max_length") if file.is_file() else None
    # A tokenizer without a limit states a number of 30 digits.
    known = [each for each in (positions, given) if isinstance(each, int) and 0 < each < 2**31]
    return min(known, default=None)


def _read_own(folder: Path, config: Mapping[str, Any]) -> ImportedModel:
    """Read a folder that an export of this package has written."""
    module = read_own_folder(folder, config)
    data, files = make_data(module.tokenizers, module.trained_length)
    return ImportedModel(type(module).__name__, module, data, files)
