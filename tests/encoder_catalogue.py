"""Catalogue of small encoders and encoder-decoders, with the variants of catalogue.py in encoder and decoder."""

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from catalogue import CONDITION, DEPTH, ENCODERS_ONLY, RECIPES, VOCAB, Options, attention, decoder
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.models.decoder import Decoder
from lightning_xt.models.encoder import Encoder
from lightning_xt.models.encoder_decoder import EncoderDecoder
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.contexts.base import ContextFactory

SOURCES, SOURCE_DIM = 23, 19
SLOTS = inspect.signature(Encoder).parameters.keys()
EVERY = {**RECIPES, **ENCODERS_ONLY}


def encoder(**options: Any) -> Encoder:
    """Build a small encoder, with other sizes than the small decoder."""
    return sized_encoder(SOURCES, **options)


def sized_encoder(size: int, **options: Any) -> Encoder:
    """Build a small encoder for any number of tokens: the recipe of an encoder-decoder."""
    return Encoder(size, **{"dim": SOURCE_DIM, "depth": DEPTH, "attention": attention(), **options})


def sized_decoder(size: int, context: ContextFactory, **options: Any) -> Decoder:
    """Build a small decoder that reads an encoder."""
    assert size == VOCAB
    return decoder(**{"cross_attention": attention(position=None), **options, "context": context})


def pair(encoder: Options | None = None, decoder: Options | None = None, **options: Any) -> EncoderDecoder:
    """Build a small encoder-decoder from options of its encoder and of its decoder."""
    return EncoderDecoder(
        SOURCES,
        VOCAB,
        encoder=partial(sized_encoder, **(encoder or {})),
        decoder=partial(sized_decoder, **(decoder or {})),
        **options,
    )


def looks_back(name: str) -> bool:
    """Return whether a recipe has a part for causal self-attention only."""
    return any(
        getattr(each, "looks_back", False) or getattr(each, "recurrent", False) for each in list_classes(EVERY[name])
    )


def serves_itself_only(name: str) -> bool:
    """Return whether a recipe has a part that is refused in cross-attention."""
    flags = ("self_attention_only", "reads_values")
    return any(getattr(each, flag, False) for each in list_classes(EVERY[name]) for flag in flags)


def list_classes(recipe: Any) -> Iterator[type]:
    """List the classes that a recipe names, those of nested recipes included."""
    if isinstance(recipe, type):
        yield recipe
    elif isinstance(recipe, partial):
        yield from list_classes([recipe.func, recipe.keywords])
    elif isinstance(recipe, dict):
        yield from list_classes(list(recipe.values()))
    elif isinstance(recipe, list):
        for each in recipe:
            yield from list_classes(each)


def decoder_options(name: str, options: Options) -> Options:
    """Return a decoder's options, with its attention's recipe for cross-attention too if that is possible."""
    options = {slot: value for slot, value in options.items() if slot != "context"}
    recipe = options.get("attention")
    if looks_back(name) or serves_itself_only(name) or not isinstance(recipe, partial) or recipe.func is not Attention:
        return options
    if recipe.keywords.get("window") is not None:
        return options
    return {"cross_attention": recipe, **options}


def encoder_options(name: str) -> Options:
    """Return the options of a recipe that an encoder has."""
    return {slot: value for slot, value in EVERY[name].items() if slot in SLOTS}


# Recipes that change an encoder; of an encoder-decoder, all except those that choose the decoder's context.
ENCODERS: dict[str, Callable[[], Encoder]] = {
    name: partial(encoder, **encoder_options(name)) for name in EVERY if name == "plain" or encoder_options(name)
}
BACKWARD = {name: build for name, build in ENCODERS.items() if looks_back(name)}
BOTH_WAYS = {name: build for name, build in ENCODERS.items() if not looks_back(name)}
# An encoder-decoder passes its encoder only the condition, no types.
PAIRS: dict[str, Callable[[], EncoderDecoder]] = {
    name: partial(
        pair,
        {} if looks_back(name) or name == "embeddings=TypeEmbedding" else encoder_options(name),
        decoder_options(name, options) if name in RECIPES else {},
    )
    for name, options in EVERY.items()
    if not name.startswith("context=")
}


# Those with another cross-attention than the plain one.
ACROSS = {
    name: build
    for name, build in PAIRS.items()
    if name in RECIPES and "cross_attention" in decoder_options(name, RECIPES[name])
}


def parametrize(builds: dict[str, Callable[[], Any]]) -> pytest.MarkDecorator:
    """Run a test with every build."""
    return pytest.mark.parametrize("build", [pytest.param(build, id=name) for name, build in builds.items()])


def source(rows: int, m: int) -> tuple[Tensor, Tensor]:
    """Return source ids, and a mask whose second row ends after four."""
    generator = torch.Generator().manual_seed(11)
    tokens = torch.randint(0, SOURCES, (rows, m), generator=generator)
    mask = torch.ones(rows, m, dtype=torch.bool)
    mask[1:2, 4:] = False
    return tokens, mask


def make_inputs(rows: int, n: int, dtype: torch.dtype = torch.float64) -> Inputs:
    """Return all inputs that a part of an encoder or of a decoder may read besides n tokens."""
    generator = torch.Generator().manual_seed(13)
    types = torch.randint(0, 2, (rows, n), generator=generator)
    return Inputs(types=types, condition=torch.randn(rows, CONDITION, generator=generator).to(dtype))
