"""Verdict on two variants: a model takes both, or the reason why none does."""

from typing import NamedTuple

from lightning_xt.commands.catalogue.combinations import (
    MODELS,
    Part,
    build,
    find_family,
    find_reason,
    list_built,
    list_joined,
)
from lightning_xt.commands.catalogue.merging import find_list_holder
from lightning_xt.commands.catalogue.variant_list import list_slots, list_variants
from lightning_xt.system.json_text import to_json
from lightning_xt.system.messages import UserError, explain_unknown


class PairVerdict(NamedTuple):
    """Verdict on two variants.

    Args:
        together: True if a model takes both.
        sentence: the answer.
    """

    together: bool
    sentence: str


def print_pair(first: str, second: str, *, as_json: bool) -> int:
    """Print whether two variants work together; return the exit code. UserError for an unknown name."""
    known = {kind.__name__: kind for _, kind in list_variants()}
    for name in (first, second):
        if name not in known:
            raise UserError(f"variants: {explain_unknown('variant', name, known)}")
    if first == second:
        raise UserError(f"variants: {first} is named twice; name two variants")
    found = answer(known[first], known[second])
    if as_json:
        print(to_json({"first": first, "second": second, **found._asdict()}, indent=2, ascii_only=True))
    else:
        print(found.sentence)
    return 0


def answer(first: type, second: type) -> PairVerdict:
    """Judge two variants by building small models."""
    one, other = first.__name__, second.__name__
    families = {kind: family for family, kind in list_variants()}
    slots = list_slots()
    parts = list[Part]()
    for kind in (first, second):
        base = find_family(kind, slots)
        if base is None:
            family = families[kind]
            return PairVerdict(
                False, f"{one} and {other} do not meet in a network: {kind.__name__} belongs to {family}"
            )
        parts.append((kind, slots[base]))
    if parts[0][1] == parts[1][1] and not parts[0][1].listed:
        return PairVerdict(
            False, f"{one} and {other} are both chosen in {families[first]}, which takes one{_offer(*parts)}"
        )
    return _build_both(*parts)


def _offer(first: Part, second: Part) -> str:
    """Return the end of a sentence that names the class that holds several of a family, if there is one."""
    holder = find_list_holder(first[0], second[0])
    return "" if holder is None or holder in (first[0], second[0]) else f"; {holder.__name__} holds several"


def _build_both(first: Part, second: Part) -> PairVerdict:
    one, other = first[0].__name__, second[0].__name__
    joined = {model: list_joined(model, first, second) for model in MODELS}
    for model, ways in joined.items():
        if any(build(model, way) is None for way in ways):
            return PairVerdict(
                True, f"{one} and {other} work together" + ("" if model == "decoder" else f" in an {model}")
            )
    for model in MODELS:
        if (reason := find_reason(model, first, second)) is not None:
            return PairVerdict(False, reason)
    for source, target in ((first, second), (second, first)):
        # The context of an encoder-decoder is the encoder's output.
        free = not target[1].path.endswith(".context") and not list_built("decoder", *source)
        if free and list_built("encoder", *source) and list_built("decoder", *target):
            return PairVerdict(
                True,
                f"{one} and {other} work together in an encoder-decoder, {source[0].__name__} in the encoder and "
                f"{target[0].__name__} in the decoder",
            )
    return PairVerdict(
        False, f"{one} and {other} leave no room for each other: {_describe(first)}, {_describe(second)}"
    )


def _describe(part: Part) -> str:
    kind, slot = part
    holder = "" if slot.owner is None else f" of {slot.owner.__name__}"
    return f"{kind.__name__} is chosen in --{slot.path}{holder}"
