"""List of the variants, and the description of one, as text and as JSON."""

import inspect
from functools import cache
from typing import Any

from lightning_xt.commands.catalogue.families import (
    OBJECTIVES,
    PARTS,
    ROOMS,
    Slot,
    find_families,
    find_overlays,
    find_slots,
    list_members,
)
from lightning_xt.commands.options.help_text import describe_parameter, format_option, wrap
from lightning_xt.models.decoder import Decoder
from lightning_xt.models.encoder import Encoder
from lightning_xt.system.discovery import init_parameters
from lightning_xt.system.docstrings import describe_options, find_counterparts, find_source, get_docstring, get_summary
from lightning_xt.system.json_text import to_json
from lightning_xt.system.messages import UserError, explain_unknown

STARTS = {"model.decoder": Decoder, "model.encoder": Encoder}


@cache
def list_slots() -> dict[type, Slot]:
    """Return the first slot of each family that a network has, in which its variants are chosen."""
    return {base: slots[0] for base, slots in find_slots(find_families(*ROOMS), STARTS).items()}


@cache
def name_family(base: type) -> str:
    """Return the word for a family: its slot in a config, or for a family that has none there, its class."""
    slot = list_slots().get(base)
    # An objective has slots too.
    for family in find_families(OBJECTIVES).values() if slot is None else ():
        for kind in list_members(family):
            slot = next(iter(find_slots(find_families(OBJECTIVES), {"": kind}).get(base, [])), slot)
    return base.__name__.lower() if slot is None else slot.path.rpartition(".")[2]


def list_variants() -> list[tuple[str, type]]:
    """Return every variant with the word for its family, in the order of the families; one of two is in the first."""
    found: dict[type, str] = {}
    for base in find_families(*ROOMS).values():
        for kind in list_members(base):
            found.setdefault(kind, name_family(base))
    return [(family, kind) for kind, family in found.items()]


def describe(family: str, kind: type) -> dict[str, Any]:
    """Return what the list holds about a variant."""
    counterparts, _ = find_counterparts(kind)
    return {
        "family": family,
        "name": kind.__name__,
        "summary": get_summary(kind),
        "source": find_source(kind),
        "x_transformers": ", ".join(counterparts) or None,
    }


def print_variants(*, as_json: bool) -> int:
    """Print all variants; return the exit code."""
    found = list_variants()
    if as_json:
        print(to_json([describe(*each) for each in found], indent=2, ascii_only=True))
        return 0
    for family in dict.fromkeys(family for family, _ in found):
        _print_members(family)
    parts = sum(any(issubclass(kind, base) for base in find_families(PARTS).values()) for _, kind in found)
    print("One variant: lightning-xt variants NAME. In a config: variants/NAME.yaml after a recipe.")
    print(f"variants={len(found)}\nparts_of_a_network={parts}")
    return 0


def _print_members(family: str) -> None:
    slot = next((slot.path for slot in list_slots().values() if slot.path.endswith(f".{family}")), None)
    print(family if slot is None else f"{family}  (--{slot})")
    for _, kind in (each for each in list_variants() if each[0] == family):
        source = find_source(kind)
        text = get_summary(kind) + ("" if source is None else f" {source.removeprefix('https://')}")
        print("\n".join(wrap(f"  {kind.__name__}", text)))
    print()


def print_family(name: str, as_json: bool) -> int:
    """Print one variant, or those of one family; return the exit code. UserError if there is none of the name."""
    found = list_variants()
    kinds = [each for each in found if each[1].__name__ == name]
    if kinds:
        return _print_variant(*kinds[0], as_json=as_json)
    members = [each for each in found if each[0] == name]
    if not members:
        known = {kind.__name__ for _, kind in found} | {family for family, _ in found}
        raise UserError(f"variants: {explain_unknown('variant', name, known)}")
    if as_json:
        print(to_json([describe(*each) for each in members], indent=2, ascii_only=True))
    else:
        _print_members(name)
    return 0


def _print_variant(family: str, kind: type, *, as_json: bool) -> int:
    from lightning_xt.commands.catalogue.combinations import find_conflicts, find_refusals

    slot = next((slot for base, slot in list_slots().items() if issubclass(kind, base)), None)
    refusals = {} if slot is None else find_refusals(kind, slot)
    conflicts = [] if slot is None else list(find_conflicts(kind, list_slots()))
    overlays = find_overlays(kind)
    if as_json:
        facts = {
            **describe(family, kind),
            "slot": None if slot is None else slot.path,
            "options": [_describe_option(kind, name) for name in _list_options(kind)],
            "overlays": [{"name": name, "text": text} for name, text in overlays.items()],
            "refused_by": refusals,
            "conflicts": [each._asdict() for each in conflicts],
        }
        print(to_json(facts, indent=2, ascii_only=True))
        return 0
    doc = get_docstring(kind)
    print(f"{kind.__name__} ({family}): {doc.short_description}\n\n{doc.long_description or ''}".rstrip())
    print(f"\nOption: --{slot.path}" if slot is not None else "")
    print("\nIts options:" if _list_options(kind) else "\nNo options.")
    for name in _list_options(kind):
        print("\n".join(format_option(describe_parameter(name, kind))))
    for name, text in overlays.items():
        print(f"\n-c {name}\n{text.rstrip()}")
    for model, reason in refusals.items():
        print("\n" + "\n".join(wrap(f"Not in an {model}:" if model[0] in "aeiou" else f"Not in a {model}:", reason)))
    if conflicts:
        print("\nCannot stand next to:")
    for each in conflicts:
        print("\n".join(wrap(f"  {each.family} {each.name}", each.reason)))
    return 0


def _list_options(kind: type) -> list[str]:
    """Return the options that a config may give; what a parent gives is not described."""
    described = describe_options(kind)
    return [name for name in init_parameters(kind) if name in described]


def _describe_option(kind: type, name: str) -> dict[str, Any]:
    default = init_parameters(kind)[name].default
    required = default is inspect.Parameter.empty
    if inspect.isclass(default):
        default = default.__name__
    plain = default is None or isinstance(default, str | int | float | list | tuple)
    return {
        "name": name,
        "required": required,
        "default": None if required else default if plain else str(default),
        "meaning": describe_options(kind)[name],
    }
