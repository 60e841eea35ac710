"""Tensors of LoRA in the form of PEFT: one pair of narrow matrices for each linear map of the other library."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_xt.exchange.tensor_rules import Rule, TensorRule
from lightning_xt.nn.adapters.low_rank_linear import LowRankLinear

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
"""Files of an adapter."""
PREFIX = "base_model.model."
"""Beginning of every name in a file of PEFT."""


@dataclass(frozen=True)
class LowRankPair:
    """Change of one linear map: `up @ down`, times a scale.

    Args:
        down: matrix of the narrow features (r, in), PEFT's lora_A.
        up: matrix of the wide features (out, r), PEFT's lora_B.
        scale: factor of the product.
    """

    down: Tensor
    up: Tensor
    scale: float

    @property
    def rank(self) -> int:
        return len(self.down)


def list_modules(rules: Iterable[Rule]) -> list[str]:
    """List the modules of the other library that have a matrix."""
    theirs = (name for rule in rules if isinstance(rule, TensorRule) for name in rule.theirs)
    return [name.removesuffix(".weight") for name in theirs if name.endswith(".weight")]


def export_pairs(network: nn.Module, rules: Sequence[Rule]) -> dict[str, LowRankPair]:
    """Return the pair of each adapted map of the other library, by the name of its module there."""
    adapted = {f"{path}.weight": each for path, each in network.named_modules() if isinstance(each, LowRankLinear)}
    return {
        name.removesuffix(".weight"): pair
        for rule in rules
        if isinstance(rule, TensorRule) and rule.ours in adapted
        for name, pair in zip(rule.theirs, _split(adapted[rule.ours], len(rule.theirs)), strict=True)
    }


def _split(layer: LowRankLinear, maps: int) -> Iterator[LowRankPair]:
    down, up = layer.lora_A.detach(), layer.lora_B.detach()
    ups = up.split(layer.rows)
    if maps == 1:
        # Several maps here are one there: each has its own narrow features.
        yield LowRankPair(down, torch.block_diag(*ups), float(layer.scale))
        return
    for own, each in zip(down.split(layer.rank), ups, strict=True):
        yield LowRankPair(own, each, float(layer.scale))


def choose_targets(rules: Sequence[Rule], pairs: Mapping[str, LowRankPair]) -> dict[str, list[str]]:
    """Return the modules there that each of our matrices is made of, for matrices of which one has a pair."""
    names = {rule.ours: [name.removesuffix(".weight") for name in rule.theirs] for rule in _list_matrices(rules)}
    return {ours: theirs for ours, theirs in names.items() if any(name in pairs for name in theirs)}


def _list_matrices(rules: Sequence[Rule]) -> Iterator[TensorRule]:
    for rule in rules:
        if isinstance(rule, TensorRule) and rule.ours.endswith(".weight"):
            yield rule


@torch.no_grad()
def import_pairs(layer: LowRankLinear, pairs: Sequence[LowRankPair | None]) -> None:
    """Copy the pairs of the maps of a layer, in their order, into it; a map without a pair does not change.

    A pair of a lower rank is filled up with zeros, and another scale is moved into its matrix `up`.

    Raises:
        ValueError: a pair has other sizes than its map.
    """
    layer.lora_B.zero_()
    if len(pairs) == 1 and pairs[0] is not None:
        # One map there is several here, with common narrow features.
        whole = pairs[0]
        pairs = [LowRankPair(whole.down, up, whole.scale) for up in whole.up.split(layer.rows)]
    for pair, down, up in zip(pairs, layer.lora_A.split(layer.rank), layer.lora_B.split(layer.rows), strict=True):
        if pair is None:
            continue
        if pair.down.shape[1:] != down.shape[1:] or pair.up.shape[:1] != up.shape[:1]:
            # A single row or column would be copied to all.
            raise ValueError(
                f"{tuple(pair.up.shape)} @ {tuple(pair.down.shape)} does not fit {tuple(layer.weight.shape)}"
            )
        down[: pair.rank] = pair.down
        up[:, : pair.rank] = pair.up if pair.scale == layer.scale else pair.up * (pair.scale / layer.scale)


def shorten(names: Iterable[str], among: Iterable[str]) -> list[str]:
    """Return the last parts of names where these stand for just the given names among all, else the whole names."""
    chosen, known = list(names), list(among)
    lasts = list(dict.fromkeys(name.rpartition(".")[2] for name in chosen))
    if {name for name in known if name.rpartition(".")[2] in lasts} == {*chosen}:
        return lasts
    return chosen
