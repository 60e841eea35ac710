"""Brings what earlier versions saved to what this one reads. Needs no Lightning."""

import re
from collections.abc import Callable, Container, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

import lightning_xt

OWN = "lightning_xt"
"""The key of a checkpoint under which stands what we put there."""
CHECKPOINT_FORMAT = 2
"""Goes up by one whenever checkpoints of before could not be read as they are; `MIGRATIONS` then gets an entry."""
WEIGHTS = ("state_dict", "current_model_state")
"""Where a checkpoint holds weights: those that are used and, where these are an average, those that are trained."""
UNFUSED = re.compile(r"(.*\.sublayers\.\d+_attention\..*)\.to_(?:q|kv)\.weight")
"""Weights of self-attention, not of cross-attention, that stand in `to_qkv.weight` since format 2."""


def migrate(content: dict[str, Any]) -> None:
    """Brings a checkpoint's content to today's format, in place; what is none of ours stays as it is.

    Where it was of an earlier format, `migrated_from` under `OWN` tells which.

    Args:
        content: what a checkpoint file holds.

    Raises:
        ValueError: a later version wrote it, or its format is no number.
    """
    own = content.get(OWN)
    if not isinstance(own, dict) or "format" not in own:
        return
    check_format(own)
    first = own["format"]
    try:
        for number in range(first, CHECKPOINT_FORMAT):
            MIGRATIONS[number](content)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"the checkpoint says it has format {first}, but its contents are not so ({type(error).__name__}: "
            f"{error}); give another checkpoint"
        ) from error
    if first < CHECKPOINT_FORMAT:
        content[OWN] = {**content[OWN], "format": CHECKPOINT_FORMAT, "migrated_from": first}


def check_format(own: dict[str, Any]) -> None:
    """Refuses what a later version wrote.

    Args:
        own: what stands under `OWN`; empty where nothing does.

    Raises:
        ValueError: the format is one that this version does not know.
    """
    found = own.get("format", CHECKPOINT_FORMAT)
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise ValueError(
            f"the checkpoint has format {found!r}, which is none: they are numbered from 1; give a .ckpt file that fit "
            "has saved"
        )
    if found > CHECKPOINT_FORMAT:
        raise ValueError(
            f"the checkpoint has format {found}, but lightning-xt {lightning_xt.__version__} reads formats up to "
            f"{CHECKPOINT_FORMAT}; it was written by version {own.get('version')}: upgrade to that"
        )


def _from_1(content: dict[str, Any]) -> None:
    """Takes one product for queries, keys and values, one name for each weight, and tokenizers by what they are for."""
    own = content[OWN] = dict(content[OWN])
    if "tokenizer" in own:
        own["tokenizers"] = {"text": own.pop("tokenizer")}
    trained = content.get("current_model_state") or content.get("state_dict") or {}
    if "optimizer_states" in content:
        content["optimizer_states"] = [_fused_state(each, trained) for each in content["optimizer_states"]]
    for key in WEIGHTS:
        if content.get(key):
            content[key] = _fused_weights(content[key])


MIGRATIONS: Mapping[int, Callable[[dict[str, Any]], None]] = MappingProxyType({1: _from_1})
"""For each earlier format what brings a content to the next, in place; not its tensors, which may lie in the file."""


def _fused_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    fused = {}
    for name, value in weights.items():
        # The first versions held the network a second time, under another name.
        if name.startswith("_trained."):
            continue
        parts = _parts(name, weights)
        if parts is None:
            fused[_renamed(name)] = value
        elif parts[0] == name:
            fused[_fused(name)] = torch.cat([weights[part] for part in parts])
    return fused


def _fused_state(saved: dict[str, Any], weights: dict[str, Tensor]) -> dict[str, Any]:
    """The state of an optimizer for the fused weights.

    Where it cannot be put together, such as sums over the rows of a weight, it stays as it is: resuming then refuses it
    by the names of its parameters, and says what to do instead.
    """
    state, groups = {}, []
    for group in saved["param_groups"]:
        if len(group.get("param_names", ())) != len(group["params"]):
            return saved
        numbers = dict(zip(group["param_names"], group["params"], strict=True))
        kept = {}
        for name, number in numbers.items():
            parts = _parts(name, numbers) or (name,)
            if parts[0] != name:
                continue
            kept[_renamed(name) if len(parts) == 1 else _fused(name)] = number
            states = [saved["state"].get(numbers[part], {}) for part in parts]
            joined = _joined(states, [weights.get(part) for part in parts])
            if joined is None:
                return saved
            if joined:
                state[number] = joined
        groups.append({**group, "params": [*kept.values()], "param_names": [*kept]})
    return {**saved, "state": state, "param_groups": groups}


def _joined(states: Sequence[dict[str, Any]], weights: Sequence[Tensor | None]) -> dict[str, Any] | None:
    """The states of weights that became one; None where there is no such state."""
    first = states[0]
    if len(states) == 1:
        return first
    if any(each.keys() != first.keys() for each in states):
        return None
    joined = {}
    for key, value in first.items():
        values = [each[key] for each in states]
        if all(_is_like(each, weight) for each, weight in zip(values, weights, strict=True)):
            joined[key] = torch.cat(values)
        elif all(isinstance(each, Tensor) and each.dim() == 0 and torch.equal(each, value) for each in values):
            # A count of steps.
            joined[key] = value
        else:
            return None
    return joined


def _is_like(value: Any, weight: Tensor | None) -> bool:
    return isinstance(value, Tensor) and weight is not None and value.shape == weight.shape


def _parts(name: str, names: Container[str]) -> tuple[str, str] | None:
    """The two weights that became one with this, if it is one of them."""
    found = UNFUSED.fullmatch(name)
    parts = None if found is None else (f"{found[1]}.to_q.weight", f"{found[1]}.to_kv.weight")
    # Latent attention has queries of that name too, and its own keys and values.
    return parts if parts is not None and all(part in names for part in parts) else None


def _fused(name: str) -> str:
    return name.removesuffix("to_q.weight") + "to_qkv.weight"


def _renamed(name: str) -> str:
    return name.replace(".to_latent.to_latent.", ".to_latent.linear.")
