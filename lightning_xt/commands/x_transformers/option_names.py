"""Names of the options of each class of x-transformers, with the prefixes of their parts."""

from collections.abc import Iterable, Mapping
from typing import Any

from lightning_xt.commands.x_transformers.expression import Call
from lightning_xt.commands.x_transformers.reference_options import read_defaults
from lightning_xt.system.messages import UserError, explain_unknown

PARTS = {"cross_attn_": "Attention", "attn_": "Attention", "ff_": "FeedForward"}
"""Constructors behind the prefixes of a stack's options."""
INNER = ("dim", "causal", "heads")
"""Options that the layers give to their parts themselves."""
WRAPPED = {
    "enc_": ("num_tokens", "max_seq_len", "emb_dropout", "num_memory_tokens", "scaled_sinu_pos_emb", "use_abs_pos_emb"),
    "dec_": ("num_tokens", "max_seq_len", "emb_dropout", "scaled_sinu_pos_emb", "use_abs_pos_emb"),
}
"""Options of an `XTransformer` that its wrappers take; its layers take the others."""


def list_options(name: str) -> list[str]:
    """List the options of a class, as a user types them."""
    known = read_defaults()
    layers = [
        *known["AttentionLayers"],
        *(prefix + each for prefix, part in PARTS.items() for each in known[part] if each not in INNER),
    ]
    if name == "XTransformer":
        sides = [
            prefix + each
            for prefix, own in WRAPPED.items()
            for each in (*own, *layers)
            if each not in ("dim", "causal")
        ]
        return [*known[name], *sides]
    return list(known[name]) if name in known and name != "AttentionLayers" else layers


def check_options(call: Call) -> None:
    """Raise a UserError for an option that a class, or one within it, does not have."""
    known = list_options(call.name)
    for option, value in call.options.items():
        if option not in known:
            place = call.places.get(option, call.place)
            homes = [
                each
                for each in ("TransformerWrapper", "Decoder", "AutoregressiveWrapper")
                if option in list_options(each)
            ]
            way = f"{option!r} is an option of {homes[0]}, not of {call.name}; move it there" if homes else None
            raise UserError(f"from-xt: {place}: {way or explain_unknown(f'option of {call.name}', option, known)}")
        if isinstance(value, Call) and option in ("attn_layers", "net"):
            check_options(value)


def split_layers(options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Split the options of a stack into its own, with the key "", and those of its parts, by their prefixes."""
    found: dict[str, dict[str, Any]] = {"": {}, **{prefix: {} for prefix in PARTS}}
    own = read_defaults()["AttentionLayers"]
    for option, value in options.items():
        prefix = "" if option in own else find_prefix(option, PARTS)
        found[prefix][option.removeprefix(prefix)] = value
    return found


def find_prefix(option: str, prefixes: Iterable[str]) -> str:
    """Return the prefix that an option begins with; "" if it begins with none."""
    return next((each for each in prefixes if option.startswith(each)), "")
