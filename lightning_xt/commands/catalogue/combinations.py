"""Combinations of variants that a model refuses, found by building small models."""

from collections.abc import Iterator, Mapping
from functools import cache
from inspect import Parameter
from itertools import product, takewhile
from typing import Any, NamedTuple

import yaml

from lightning_xt.commands.catalogue.families import PARTS, Slot, find_families, find_overlays, list_members
from lightning_xt.commands.catalogue.merging import list_named, merge
from lightning_xt.commands.catalogue.recipes import make_recipe
from lightning_xt.models.decoder import Decoder
from lightning_xt.models.encoder import Encoder
from lightning_xt.system.discovery import init_parameters
from lightning_xt.system.docstrings import describe_options

MODELS: dict[str, type] = {"decoder": Decoder, "encoder": Encoder}
VOCAB = 256
SIZES = {"dim": 128, "depth": 3}
"""Width and heads of the quickstart's model, which the overlays are written for."""
HEADS = {"attention": {"heads": 4}}


Part = tuple[type, Slot]
"""Part of a network, and the slot in which it is chosen."""


class Conflict(NamedTuple):
    """Variant that a variant cannot stand next to.

    Args:
        family: its family.
        name: its name.
        reason: the message of the model that was to have both.
    """

    family: str
    name: str
    reason: str


def choose(kind: type, slot: Slot) -> dict[str, Any]:
    """Return the options of a decoder or encoder that choose a variant: its own overlay, else its name in its slot."""
    return list_choices(kind, slot)[0]


@cache
def list_choices(kind: type, slot: Slot) -> list[dict[str, Any]]:
    """List the ways to choose a variant: its own overlay, if there is one, and its name in its slot."""
    own, known = f"variants/{kind.__module__.rpartition('.')[2]}.yaml", describe_options(kind)
    required = [p for p in init_parameters(kind).values() if p.default is Parameter.empty and p.name in known]
    chosen = []
    for name, text in find_overlays(kind).items():
        options = yaml.safe_load(text)["model"]["init_args"]
        if "decoder" in options and (required or name == own):
            chosen.append(dict(options["decoder"]))
    # Other classes of an overlay may be refused where this one is not.
    best = next((each for each in chosen if all(build(model, each) is None for model in MODELS)), None)
    best_first = [best] if best is not None else chosen[:1]
    if best_first and any(p.annotation not in (int, float) for p in required):
        return best_first
    value: Any = kind.__name__
    if required:
        # Numbers that any model takes: widths, and factors.
        value = {"class_path": value, "init_args": {p.name: 8 if p.annotation is int else 2.0 for p in required}}
    names = slot.path.split(".")[2:]
    value = {names.pop(): [value] if slot.listed else value}
    if slot.owner is not None:
        value = {"class_path": slot.owner.__name__, "init_args": value}
        value = {names.pop(): value}
    for name in reversed(names):
        value = {name: value}
    return [*best_first, dict(value)]


def build(model: str, options: Mapping[str, Any]) -> str | None:
    """Build a small model; return why it is refused, None if it is not."""
    kind = MODELS[model]
    try:
        make_recipe(kind, merge(merge(SIZES, HEADS), _select_known(kind, options)))(VOCAB)
    except ValueError as error:
        return " ".join(str(error).split())
    return None


def _select_known(model: type, options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name in init_parameters(model)}


def find_refusals(kind: type, slot: Slot) -> dict[str, str]:
    """Return why a variant is refused by itself, by the model that refuses it."""
    chosen = choose(kind, slot)
    return {model: reason for model in MODELS if (reason := build(model, chosen)) is not None}


def find_conflicts(kind: type, slots: Mapping[type, Slot]) -> Iterator[Conflict]:
    """Yield the variants of other slots that a model refuses next to a variant, each of which it takes without it."""
    family = find_family(kind, slots)
    if family is None:
        return
    model = next((each for each in MODELS if list_built(each, kind, slots[family])), None)
    for base in find_families(PARTS).values() if model is not None else ():
        slot = slots.get(base)
        # A slot with one class has no room for two; a list has.
        if slot is None or (base is family and not slot.listed):
            continue
        for other in list_members(base):
            reason = None if other is kind else find_reason(str(model), (kind, slots[family]), (other, slot))
            if reason is not None:
                yield Conflict(slot.path.rpartition(".")[2], other.__name__, reason)


def find_family(kind: type, slots: Mapping[type, Slot]) -> type | None:
    """Return the family of a part of a network; None for anything else."""
    return next((base for base in slots if issubclass(kind, base)), None)


def find_reason(model: str, first: Part, second: Part) -> str | None:
    """Return why a model refuses two parts together, in whichever way they are chosen; None if it does not.

    None, too, if it refuses one of them alone, or has no room for both.
    """
    chosen = list_joined(model, first, second)
    # Other classes of an overlay may be what is refused.
    reasons = list(takewhile(lambda reason: reason is not None, (build(model, each) for each in chosen)))
    return reasons[0] if reasons and len(reasons) == len(chosen) else None


def list_joined(model: str, first: Part, second: Part) -> list[dict[str, Any]]:
    """List the ways to choose two parts of which a model takes each alone; none if one leaves no room for the other."""
    names = {first[0].__name__, second[0].__name__}
    ways = product(list_built(model, *first), list_built(model, *second))
    joined = (merge(one, other, MODELS[model]) for one, other in ways)
    return [
        each for each in (_select_known(MODELS[model], options) for options in joined) if names <= set(list_named(each))
    ]


@cache
def list_built(model: str, kind: type, slot: Slot) -> list[dict[str, Any]]:
    """List the ways to choose a variant that a model takes."""
    return [each for each in list_choices(kind, slot) if build(model, each) is None]
