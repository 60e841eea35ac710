"""Every pair of variants of different slots, and of one list, as one small model.

The variants and their options are those of catalogue.py; two are merged as `lightning-xt variants A B` merges them.
"""

from collections.abc import Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

from catalogue import ENCODERS_ONLY, PLACED, Options, decoder
from encoder_catalogue import SLOTS, encoder, looks_back, pair, serves_itself_only
from torch import nn

from lightning_xt.commands.catalogue.merging import list_named, merge
from lightning_xt.commands.catalogue.recipes import make_recipe
from lightning_xt.models.decoder import Decoder
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.attention.layerwise_attention import LayerwiseAttention


def spell(value: Any) -> Any:
    """Return a recipe, or options of a model, as a config spells them."""
    if isinstance(value, type):
        return {"class_path": value.__name__}
    if isinstance(value, partial):
        return spell(value.func) | {"init_args": spell(value.keywords)}
    if isinstance(value, dict):
        return {name: spell(each) for name, each in value.items()}
    return [spell(each) for each in value] if isinstance(value, list) else value


SPELLED: dict[str, Options] = {name: spell(options) for name, (_, options) in PLACED.items()}


def get_slot(name: str) -> str:
    """Return the slot of a name of the catalogue."""
    return name.partition("=")[0]


def _is_listed(name: str) -> bool:
    def find(options: Any) -> Any:
        if not isinstance(options, dict):
            return None
        return options.get(get_slot(name)) or next(filter(None, map(find, options.values())), None)

    return isinstance(find(SPELLED[name]), list)


LISTED = {get_slot(name) for name in PLACED if _is_listed(name)}
"""Slots that take several variants."""


ROOM: dict[frozenset[str], Options] = {
    frozenset({"links=UNetSkips", "layout=AttentionOnly"}): {"depth": 3},
    frozenset({"links=UNetSkips", "layout=Parallel"}): {"depth": 3},
    frozenset({"layout=PAROrder", "attention=LayerwiseAttention"}): spell(
        {"attention": partial(LayerwiseAttention, options={"window": [None]})}
    ),
}
"""Options that two variants need together: sublayers, or a value for each of three layers."""


class Built(NamedTuple):
    """Model with several variants.

    Args:
        kind: decoder, encoder or pair (encoder-decoder).
        model: the model.
    """

    kind: str
    model: nn.Module


def combine(names: Sequence[str]) -> Options | None:
    """Return the options of a model with several variants; None if one of them leaves no room for another."""
    more = [options for pair, options in ROOM.items() if pair <= set(names)]
    options = reduce(partial(merge, owner=Decoder), (*(SPELLED[name] for name in names), *more))
    named = set(list_named(options))
    return options if all(PLACED[name][0].__name__ in named for name in names) else None


def fits(names: Sequence[str]) -> bool:
    """Return whether a model has room for several variants."""
    slots = [get_slot(name) for name in names]
    if any(slot not in LISTED and slots.count(slot) > 1 for slot in slots) or combine(names) is None:
        return False
    # An encoder has no context, and the context of an encoder-decoder is the encoder's output.
    return "context" not in slots or not any(name in ENCODERS_ONLY for name in names)


def list_partners(name: str) -> list[str]:
    """List the variants that stand after one in the catalogue and have room next to it."""
    return [each for each in list(PLACED)[list(PLACED).index(name) + 1 :] if fits((name, each))]


def build(names: Sequence[str]) -> Built:
    """Build a decoder with several variants; one that serves encoders only stands where no token is later.

    Raises:
        ValueError: the model refuses them.
    """
    ahead = [name for name in names if name in ENCODERS_ONLY]
    options = _resolve(names)
    if not ahead:
        return Built("decoder", decoder(**options))
    if options.keys() <= SLOTS and not any(map(looks_back, names)):
        return Built("encoder", encoder(**options))
    return Built("pair", pair(_resolve(ahead), _resolve([name for name in names if name not in ENCODERS_ONLY])))


def build_across(names: Sequence[str]) -> Built:
    """Build an encoder-decoder with several variants in its encoder, its decoder and its cross-attention.

    Raises:
        ValueError: the model refuses them.
    """
    encoding = [name for name in names if not looks_back(name) and name != "embeddings=TypeEmbedding"]
    decoding = [name for name in names if name not in ENCODERS_ONLY]
    crossing = [name for name in decoding if not looks_back(name) and not serves_itself_only(name)]
    across = _resolve(crossing).get("attention")
    options = {} if across is None or across.func is not Attention else {"cross_attention": across}
    encoder_options = {name: value for name, value in _resolve(encoding).items() if name in SLOTS}
    return Built("pair", pair(encoder_options, {**_resolve(decoding), **options}))


def _resolve(names: Sequence[str]) -> Options:
    recipe: Any = make_recipe(Decoder, (combine(names) if names else None) or {})
    return dict(recipe.keywords)


def list_pairs() -> list[tuple[str, str]]:
    """List every pair of names."""
    return [(one, other) for one in PLACED for other in list_partners(one)]


def meet_across(names: Sequence[str]) -> bool:
    """Return whether variants meet in an encoder-decoder: two parts of attention, or plain attention and any other."""
    inside = all("attention" in SPELLED[name] for name in names) or "attention=Attention" in names
    return inside and "context" not in map(get_slot, names)
