"""Import of an adapter that PEFT has saved in a folder, onto the model of a run."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_xt.exchange.adapters.adapter_tensors import (
    CONFIG,
    PREFIX,
    TENSORS,
    LowRankPair,
    choose_targets,
    import_pairs,
    list_modules,
    shorten,
)
from lightning_xt.exchange.exported_model import ExportedModel
from lightning_xt.exchange.folders.folder_files import check_files, read_json
from lightning_xt.exchange.folders.safetensors_files import read_tensor_file, refuse_large_files
from lightning_xt.exchange.pretrained.shape_choice import fit_shape
from lightning_xt.exchange.tensor_rules import Rule, TensorRule, list_stacked_rows
from lightning_xt.nn.adapters.lora import LoRA
from lightning_xt.nn.adapters.low_rank_linear import LowRankLinear
from lightning_xt.system.discovery import import_path
from lightning_xt.system.messages import UserError
from lightning_xt.training.from_config import instantiate
from lightning_xt.training.module import TransformerModule

PLAIN: Mapping[str, Any] = {
    "peft_type": "LORA", "bias": "none", "use_dora": False, "lora_bias": False, "layer_replication": None,
    "target_parameters": None, "trainable_token_indices": None, "use_qalora": False, "kasa_config": None,
    "velora_config": None, "monteclora_config": None,
}  # fmt: skip
"""Settings of PEFT that have one value in adapters with a counterpart here."""
INITS: Sequence[Any] = (True, False, "gaussian", None)
"""Values of init_lora_weights with which PEFT, when it loads an adapter, leaves the weights of the base as they are."""


def read_adapter(folder: Path, base: ExportedModel) -> TransformerModule:
    """Return the base with the adapter of a folder.

    Raises:
        UserError: a file is missing or malformed, or the adapter does not fit the base.
        MisfitError: the base does not have the shape of a model of `transformers`.
    """
    check_files(folder)
    config = _read_config(folder / CONFIG)
    tensors = _read_tensors(folder)
    base = base.merge()
    shape, settings = fit_shape(base)
    rules = shape.list_rules(settings)
    pairs = _collect_pairs(folder, config, tensors, list_modules(rules))
    if not pairs:
        raise UserError(f"{folder / TENSORS} holds no lora_A and lora_B; give an adapter that PEFT has saved")
    module = _build(base, rules, pairs, _save_base(folder, base.network, rules, tensors))
    _copy_pairs(folder, module.network, choose_targets(rules, pairs), pairs)
    return module


def _read_config(file: Path) -> dict[str, Any]:
    config = read_json(file)
    for name, value in PLAIN.items():
        if (found := config.get(name, value)) != value:
            raise UserError(f"{file}: {name} is {found!r}, but only {value!r} has a counterpart here")
    if (found := config.get("init_lora_weights", True)) not in INITS:
        raise UserError(
            f"{file}: init_lora_weights is {found!r}, with which PEFT changes the base when it loads the adapter; "
            "convert it to plain LoRA first, with save_pretrained(..., path_initial_model_for_weight_conversion=...) "
            "of PEFT"
        )
    alphas = config.get("alpha_pattern") or {}
    if not isinstance(alphas, dict):
        raise UserError(f"{file}: alpha_pattern is {alphas!r}, not a mapping; copy it again")
    if odd := [name for name in alphas if not re.fullmatch(r"[\w.-]+", name)]:
        raise UserError(
            f"{file}: alpha_pattern has {odd[0]!r}, but only names of modules have a counterpart here, not regular "
            "expressions; name each module, such as model.layers.0.self_attn.q_proj"
        )
    named = {f"alpha_pattern: {name}": value for name, value in alphas.items()}
    for name, value in {"lora_alpha": config.get("lora_alpha", 8), **named}.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise UserError(f"{file}: {name} is {value!r}; it must be a number above 0")
    return config


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    if not (folder / TENSORS).is_file():
        if (folder / "adapter_model.bin").exists():
            raise UserError(
                f"{folder} has its weights in adapter_model.bin, which is pickled: to load it could run any code; save "
                "the adapter again with save_pretrained of PEFT"
            )
        raise UserError(f"{folder} has no {TENSORS}; give an adapter that PEFT has saved")
    refuse_large_files([folder / TENSORS])
    found = read_tensor_file(folder / TENSORS)
    if odd := [name for name in found if not name.startswith(PREFIX)]:
        raise UserError(f"{folder / TENSORS} holds {odd[0]}, which does not begin with {PREFIX} as names of PEFT do")
    return {name.removeprefix(PREFIX): each for name, each in found.items()}


def _collect_pairs(
    folder: Path, config: Mapping[str, Any], tensors: dict[str, Tensor], known: Sequence[str]
) -> dict[str, LowRankPair]:
    """Take the pairs out of the tensors, by the modules that they change; UserError if one is incomplete or unknown."""
    ends = ".lora_A.weight", ".lora_B.weight"
    names = dict.fromkeys(name.removesuffix(end) for name in tensors for end in ends if name.endswith(end))
    found = {}
    for name in names:
        down, up = (tensors.pop(f"{name}{end}", None) for end in ends)
        if down is None or up is None:
            raise UserError(f"{folder / TENSORS} has only one of {name}{ends[0]} and {ends[1][1:]}; copy it again")
        if name not in known:
            raise UserError(f"{folder / TENSORS} changes {name}, which the base does not have; name another --base")
        if down.dim() != 2 or up.dim() != 2 or len(down) != up.shape[1]:
            raise UserError(f"{folder / TENSORS}: {name} has matrices {tuple(down.shape)} and {tuple(up.shape)}")
        found[name] = LowRankPair(down, up, _find_alpha(config, name) / _find_divisor(config, len(down)))
    return found


def _find_alpha(config: Mapping[str, Any], name: str) -> float:
    alphas: Mapping[str, float] = config.get("alpha_pattern") or {}
    own = (value for given, value in alphas.items() if f".{name}".endswith(f".{given}"))
    return float(next(own, config.get("lora_alpha", 8)))


def _find_divisor(config: Mapping[str, Any], rank: int) -> float:
    return math.sqrt(rank) if config.get("use_rslora") else rank


@torch.no_grad()
def _save_base(folder: Path, network: nn.Module, rules: Sequence[Rule], tensors: dict[str, Tensor]) -> list[str]:
    """Copy what the adapter has besides pairs into the base, and return the names of those parameters here."""
    own, rows, saved = dict(network.named_parameters(remove_duplicate=False)), list_stacked_rows(network), []
    for rule in rules:
        if not isinstance(rule, TensorRule) or not {*rule.theirs} & tensors.keys():
            continue
        parts = [own[rule.ours]] if len(rule.theirs) == 1 else own[rule.ours].split(rows[rule.ours])
        for name, part in zip(rule.theirs, parts, strict=True):
            if name in tensors:
                value = tensors.pop(name)
                value = value.mT if rule.transposed and value.dim() == 2 else value
                if value.shape != part.shape:
                    raise UserError(f"{folder / TENSORS}: {name} has shape {tuple(value.shape)}; name another --base")
                part.copy_(value)
        saved.append(rule.ours)
    if tensors:
        raise UserError(f"{folder / TENSORS} holds {next(iter(tensors))}, which has no counterpart here")
    return saved


def _build(
    base: ExportedModel, rules: Sequence[Rule], pairs: Mapping[str, LowRankPair], saved: list[str]
) -> TransformerModule:
    """Build the base with an adapter, whose pairs are zero, and load the weights of the base."""
    rank = max(pair.rank for pair in pairs.values())
    scale = next(iter(pairs.values())).scale
    chosen = [name.removesuffix(".weight") for name in choose_targets(rules, pairs)]
    linears = [name for name, each in base.network.named_modules() if isinstance(each, nn.Linear)]
    targets = [name if name in linears else f"*.{name}" for name in shorten(chosen, linears)]
    options = {"rank": rank, "alpha": scale * rank, "dropout": 0.0, "targets": targets, "trained": saved}
    adapter = {"class_path": import_path(LoRA), "init_args": {**options, "rank_stabilized": False}}
    module = instantiate(type(base.module), {**base.config, "adapter": adapter})
    module.load_state_dict(module.state_dict() | base.module.state_dict())
    return module.eval()


def _copy_pairs(
    folder: Path, network: nn.Module, targets: Mapping[str, list[str]], pairs: Mapping[str, LowRankPair]
) -> None:
    for ours, theirs in targets.items():
        layer = network.get_submodule(ours.removesuffix(".weight"))
        if not isinstance(layer, LowRankLinear):
            raise UserError(f"{folder} changes {theirs[0]}, which is not a linear map here")
        try:
            import_pairs(layer, [pairs.get(name) for name in theirs])
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"{folder / TENSORS}: the matrices of {theirs[0]} have other sizes than the base"
            ) from error
