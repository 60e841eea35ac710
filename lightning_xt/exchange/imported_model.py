"""Models of other libraries, as modules of this package."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lightning_xt.checkpoints.migrations import METADATA_KEY
from lightning_xt.checkpoints.saved_tokenizers import name_tokenizer_file
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.data.tokenizers.difference import describe_difference
from lightning_xt.exchange.tensor_rules import ImportRule, TensorMisfitError, check_rules, import_tensors
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


def build_module(
    source: str,
    kind: str,
    options: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    list_rules: Callable[[nn.Module], Sequence[ImportRule]],
) -> TransformerModule:
    """Build a module and copy tensors into it; memory is taken only when all of them fit.

    Args:
        source: name of the model in messages.
        kind: class of the model.
        options: its options.
        tensors: tensors of the other library.
        list_rules: lists the rules of a network, which may be without memory.

    Raises:
        UserError: an option is refused, or a tensor is missing, left over, or of another shape.
    """
    options = dict(options)
    for side in ("encoder", "decoder"):
        network = options.get(side) or {}
        depth = network.get("init_args", network).get("depth")
        # Each layer has weights, and thousands that have none would take minutes.
        if isinstance(depth, int) and depth > len(tensors):
            raise UserError(
                f"{source} has {depth} layers, but the weights have {len(tensors)} tensors; they are of another model"
            )
    try:
        with torch.device("meta"):
            draft = KINDS[kind].from_config(options)
        check_rules(draft.network, list_rules(draft.network), tensors)
        module = KINDS[kind].from_config(options)
        import_tensors(module.network, list_rules(module.network), tensors)
    except TensorMisfitError as error:
        raise UserError(f"{source}: {error}") from error
    except (ValueError, RuntimeError, OverflowError) as error:
        # Sizes whose product torch cannot count are runtime errors.
        raise UserError(f"{source} is refused here: {error}") from error
    return module.eval()


def restore_facts(module: TransformerModule, tokenizers: Mapping[str, Tokenizer], longest: int | None) -> None:
    """Give a module its tokenizers and the length of its training."""
    made = {
        use: {"class_path": import_path(type(each)), "init_args": each.init_args} for use, each in tokenizers.items()
    }
    module.on_load_checkpoint({METADATA_KEY: {"tokenizers": made, "trained_length": longest}})


def make_data(tokenizers: Mapping[str, Tokenizer], longest: int | None) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return a config of data that a model reads, text or pairs, and the files that it names, by name.

    Args:
        tokenizers: the tokenizers of the model, by use.
        longest: longest sequence of the model's training, in tokens. None = unknown.
    """
    files: dict[str, bytes] = {}
    made = {use: _describe_tokenizer(use, each, files) for use, each in tokenizers.items()}
    if "source" not in tokenizers:
        length = TRAINED_ROW if longest is None else min(TRAINED_ROW, longest)
        options: dict[str, Any] = {"tokenizer": next(iter(made.values())), "seq_len": length}
        return {"class_path": "StandardLibrary", "init_args": options}, files
    options = {"tokenizer": made["source"], "shared_tokenizer": True}
    if describe_difference(tokenizers["source"], tokenizers["target"]) is not None:
        options |= {"shared_tokenizer": False, "target_tokenizer": made["target"]}
    return {"class_path": "Multi30k", "init_args": options}, files


def _describe_tokenizer(use: str, tokenizer: Tokenizer, files: dict[str, bytes]) -> dict[str, Any]:
    """Return the config of a tokenizer, and add its file."""
    options = {name: value for name, value in tokenizer.init_args.items() if name not in ("model", "specials")}
    if (content := tokenizer.saved_content) is not None:
        options["file"] = name_tokenizer_file(use, tokenizer.saved_name)
        files[options["file"]] = content
    return {"class_path": import_path(type(tokenizer)), "init_args": options}
