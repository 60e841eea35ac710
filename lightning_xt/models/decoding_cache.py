"""Caches of a decoder: their making, and forwards that append to them."""

from collections.abc import Iterable
from functools import partial
from typing import Any, cast

from jaxtyping import Float, Int
from torch import Tensor

from lightning_xt.core.cache import Cache
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.trace import Trace
from lightning_xt.models.decoder_checks import refuse_training
from lightning_xt.models.segmented_cache import SegmentedCache
from lightning_xt.nn.embeddings.base import Embedding


def make_cache(
    decoder: Any, batch: int, capacity: int, *, slack: int, window: int | None, static: bool
) -> Cache | SegmentedCache:
    """Make an empty cache; see `Decoder.new_cache`."""
    stack, segments = decoder.stack, decoder.segments
    make = partial(
        Cache,
        calls=stack.calls + len(decoder.embeddings),
        device=decoder.token_embedding.weight.device,
        slack=slack,
        window=window,
        static=static and segments is None,
        recurrent=decoder.recurrences,
    )
    if segments is None:
        return make(batch, capacity)
    seeing = [
        call for call in range(stack.calls) if segments.adds_tokens or call % len(stack.steps) in stack.attention_calls
    ]
    return SegmentedCache(batch, capacity, make, frozenset(seeing), segments)


def announce(
    decoder: Any,
    tokens: Int[Tensor, "b n"],
    lengths: Int[Tensor, " b"] | None,
    inputs: Inputs | None,
    cache: Cache | SegmentedCache,
) -> None:
    """Announce soft and other tokens, of which `lengths` are real, to a cache.

    Raises:
        ValueError: the tokens do not fit, or come with another context than the cached ones.
    """
    rows, n = tokens.shape
    counted = cache.tokens if isinstance(cache, SegmentedCache) else cache
    counted.begin(n if inputs is None else inputs.num_soft_tokens + n, lengths, rows=rows)
    if isinstance(cache, SegmentedCache) and decoder.segments is not None:
        m = (
            inputs.memories.num_tokens
            if inputs is not None and inputs.memories is not None and cache.stream.empty
            else 0
        )
        cache.stream.begin(m + n, None if lengths is None else m + lengths, rows=rows)
    for embedding in cast(Iterable[Embedding], decoder.embeddings):
        embedding.check_end(counted.extent.real_end)
    if decoder.context is not None and not counted.empty and inputs is not None and inputs.context is not None:
        counted.check_context(*decoder.context(rows, inputs.to(decoder.token_embedding.weight.dtype)))


def run_announced(
    decoder: Any,
    tokens: Int[Tensor, "b n"],
    lengths: Int[Tensor, " b"] | None,
    inputs: Inputs | None,
    cache: Cache | SegmentedCache | None,
    trace: Trace,
) -> tuple[Float[Tensor, "b _ D"], Trace]:
    """Compute hidden states and their trace, and count the tokens as cached."""
    if cache is not None:
        announce(decoder, tokens, lengths, inputs, cache)
    x, trace = decoder.run_layers(tokens, lengths, inputs, cache, trace)
    if cache is not None:
        cache.commit()
        if x.requires_grad:
            x.register_hook(refuse_training)
    return x, trace
