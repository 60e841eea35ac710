"""Checks of a decoder's options and inputs."""

from collections.abc import Iterable

from torch import Tensor, nn

from lightning_xt.core.cache import Cache
from lightning_xt.core.inputs import WHOLE_SEQUENCES, Inputs
from lightning_xt.models.segmented_cache import SegmentedCache
from lightning_xt.models.stack import Stack
from lightning_xt.nn.segments.base import Segments
from lightning_xt.system.option_checks import check_option


def refuse_training(gradient: Tensor) -> None:
    """Raise a ValueError; a hook on what a forward with a cache computed."""
    raise ValueError(
        "a cache is overwritten in place, so nothing can be trained through it; train without a cache, or decode under "
        "torch.no_grad()"
    )


def check_prefix(inputs: Inputs, dim: int) -> None:
    """Raise a ValueError for a soft prefix of another width than `dim`, or with inputs that say nothing of it."""
    if inputs.prefix is not None and inputs.prefix.shape[-1] != dim:
        raise ValueError(
            f"Inputs(prefix=...) has vectors {inputs.prefix.shape[-1]} wide, but dim is {dim}; give both the same width"
        )
    for name in (*WHOLE_SEQUENCES, "types"):
        if getattr(inputs, name) is not None:
            raise ValueError(f"Inputs({name}=...) says nothing of soft tokens; omit it, or prefix")


def check_cache(
    cache: Cache | SegmentedCache | None, segments: Segments | None, stack: Stack, rows: int, inputs: Inputs | None
) -> None:
    """Refuse a cache of another kind of model, and memories of another one or without segments, by a ValueError."""
    if cache is not None and isinstance(cache, SegmentedCache) != (segments is not None):
        raise ValueError("the cache belongs to another model; use one that new_cache of this model makes")
    if segments is not None and inputs is not None and inputs.memories is not None:
        segments.check_memories(inputs.memories, rows, len(stack.attention_calls), stack.dim)
    if segments is None and inputs is not None and inputs.memories is not None:
        raise ValueError(
            "Inputs(memories=...) needs a decoder with segments, and this one has none; set segments, or omit it"
        )


def check_segments(segments: Segments, embeddings: Iterable[nn.Module], stack: nn.Module) -> None:
    """Refuse segments longer than positions reach, and memory tokens with parts that read ids, by a ValueError."""
    name = type(segments).__name__
    for part in embeddings:
        limit = getattr(part, "max_length", None)
        if limit is not None and limit < segments.length:
            raise ValueError(
                f"segments: {name} has segments of {segments.length} tokens, but {type(part).__name__} has only "
                f"{limit} positions; set segments.length to at most that, or raise its max_length"
            )
    reading = [type(part).__name__ for part in stack.modules() if getattr(part, "reads_tokens", False)]
    if segments.adds_tokens and reading:
        raise ValueError(
            f"segments: {name} adds tokens without ids, but {reading[0]} reads ids; choose other segments, such as "
            f"SegmentRecurrence, or omit {reading[0]}"
        )


def check_sizes(vocab_size: int, dim: int, depth: int, dropout: float) -> None:
    """Raise a ValueError for a size or a dropout of a decoder out of range."""
    for name, value, most in (("vocab_size", vocab_size, 2**31), ("dim", dim, 1_000_000), ("depth", depth, 10_000)):
        check_option("decoder", name, value, least=1, most=most)
    check_option("decoder", "dropout", dropout, least=0, below=1)
