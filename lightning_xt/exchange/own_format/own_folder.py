"""Folders of models of this package: all tensors by their names here, a complete config, and the tokenizers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_xt.checkpoints.migrations import METADATA_KEY
from lightning_xt.exchange.exported_model import ExportedModel
from lightning_xt.exchange.folders.json_files import write_json
from lightning_xt.exchange.folders.safetensors_files import read_tensors, write_tensors
from lightning_xt.exchange.generation_settings import list_ids, make_generation_config
from lightning_xt.exchange.own_format.model_entry import build_model, describe_model
from lightning_xt.exchange.tensor_rules import TensorMisfitError, check_tensors
from lightning_xt.exchange.tokenizers.exported_tokenizers import write_tokenizers
from lightning_xt.models.encoder_decoder import EncoderDecoder
from lightning_xt.system.messages import UserError
from lightning_xt.training.module import TransformerModule

MODEL_TYPE = "lightning_xt"
"""The `model_type` of their config.json."""


def write_own_folder(model: ExportedModel, folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the folder of a model; `settings` are added to its config.json."""
    state = model.module.state_dict(keep_vars=True)
    shared = find_shared(model.module)
    kept = {name: each.detach() for name, each in state.items() if name not in shared}
    write_tensors(kept, folder, model.options.dtype)
    ids = list_ids(model)
    config = {
        "model_type": MODEL_TYPE,
        "is_encoder_decoder": isinstance(model.network, EncoderDecoder),
        "vocab_size": model.vocab_size,
        "max_position_embeddings": model.max_length,
        "dtype": str(model.options.dtype).removeprefix("torch."),
        **ids,
        **settings,
        METADATA_KEY: describe_model(model.module),
    }
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", make_generation_config(model, ids))
    write_tokenizers(model, folder)


def read_own_folder(folder: Path, config: Mapping[str, Any]) -> TransformerModule:
    """Build the model of a folder from its config.json, with its weights; UserError if it cannot be."""
    module = build_model(str(folder / "config.json"), config[METADATA_KEY])
    try:
        load_tensors(module, read_tensors(folder))
    except ValueError as error:
        raise UserError(f"{folder}: {error}") from error
    return module.eval()


def find_shared(module: nn.Module) -> dict[str, str]:
    """Return the parameters that have another name too, each with its first name."""
    first: dict[int, str] = {}
    names = [(name, first.setdefault(id(each), name)) for name, each in module.named_parameters(remove_duplicate=False)]
    return {name: original for name, original in names if name != original}


@torch.no_grad()
def load_tensors(module: nn.Module, given: Mapping[str, Tensor]) -> None:
    """Copy the tensors of a file into a model.

    Raises:
        TensorMisfitError: a tensor is missing, left over, or of another shape or type; the message names it.
    """
    shared, state = find_shared(module), module.state_dict()
    found = {name: each for name, each in given.items() if name not in shared or shared[name] not in given}
    found = {shared.get(name, name): each for name, each in found.items()}
    check_tensors(found, {name: tuple(each.shape) for name, each in state.items() if name not in shared})
    for name, each in found.items():
        if each.is_floating_point() != state[name].is_floating_point():
            kinds = (str(some.dtype).removeprefix("torch.") for some in (each, state[name]))
            raise TensorMisfitError("{} holds numbers of type {} instead of {}".format(name, *kinds))
    for name, each in found.items():
        state[name].copy_(each)
