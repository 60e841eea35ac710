"""Forwards of a decoder that reads segments."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_xt.core.cache import Cache
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.memories import Memories
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.models.past import Past
from lightning_xt.models.segment_inputs import place_after, slice_inputs, surround_inputs
from lightning_xt.models.segmented_cache import SegmentedCache
from lightning_xt.models.stack import Stack
from lightning_xt.nn.segments.base import Segments

Forward = Callable[[Tensor, Tensor | None, Inputs | None, Any, Trace], tuple[Tensor, Trace]]
"""Hidden states and trace of one segment, of tokens, lengths, inputs, cache and trace."""


def run_stack(
    stack: Stack,
    segments: Segments,
    x: Float[Tensor, "b n D"],
    where: Where,
    inputs: Inputs,
    lengths: Int[Tensor, " b"] | None,
    cache: Cache | SegmentedCache | None,
    trace: Trace,
) -> tuple[Float[Tensor, "b n D"], Trace]:
    """Run the layers over one segment; without a cache, the trace gets its memories."""
    cache, memories, n = cast(SegmentedCache | None, cache), inputs.memories, x.shape[1]
    starts = cache is None or cache.stream.empty
    before = 0 if memories is None or not starts else memories.num_tokens
    after = segments.memory if segments.adds_tokens and cache is None else 0
    known = None if memories is None else memories if cache is not None else segments.hide(memories)
    around = surround_inputs(inputs, n, before, after, lengths, known, x.device)
    whole = None if lengths is None else before + lengths + after
    if cache is not None and inputs.visible_prefix is not None:
        offset = before or cache.stream.lengths - cache.tokens.lengths
        around = replace(around, visible_prefix=inputs.visible_prefix + offset)
    around_where = where
    if cache is not None:
        around_where = Where.from_cache(cache.stream, around)
    elif before + after:
        size = before + n + after
        around_where = Where.from_sequence(size, causal=True, inputs=around, lengths=whole, device=x.device)
    if segments.adds_tokens:
        return _run_with_tokens(stack, segments, x, around_where, around, lengths, cache, trace, (before, after))
    read = memories if before else None
    vectors, embedded = (None, None) if read is None else (read.vectors, read.embedded)
    past = Past(vectors, stack.attention_calls, embedded, around_where, around)
    states, trace = stack(x, where, inputs, replace(trace, reads=()), cache, past)
    if cache is not None or trace.reads is None:
        return states, trace
    return states, replace(trace, memories=_remember(segments, trace.reads, inputs, past, n, whole))


def _remember(
    segments: Segments,
    reads: tuple[Float[Tensor, "b n D"], ...],
    inputs: Inputs,
    past: Past,
    n: int,
    lengths: Int[Tensor, " b"] | None,
) -> Memories:
    """Keep the last vectors that attention read, those of earlier segments included."""
    (embedded, *calls), memories, around = reads, inputs.memories, past.inputs
    valid = None
    if inputs.hidden_tokens is not None or (memories is not None and memories.valid is not None):
        hidden = torch.zeros(len(embedded), n, dtype=torch.bool, device=embedded.device)
        valid = ~(hidden if inputs.hidden_tokens is None else inputs.hidden_tokens)
        if memories is not None:
            valid = torch.cat((memories.seen, valid), dim=1)
    condition = around.condition
    chosen = segments.choose_vectors(tuple(calls))
    made = Memories(
        tuple(past.prepend(vectors, index) for index, vectors in enumerate(chosen)),
        embedded=embedded if past.embedded is None else torch.cat((past.embedded.to(embedded.dtype), embedded), dim=1),
        tokens=around.tokens,
        documents=around.documents,
        valid=valid,
        condition=condition if condition is not None and condition.dim() == 3 else None,
    ).keep_last(segments.memory, lengths)
    return made if made.documents is None else replace(made, documents=made.documents - made.documents[:, -1:])


def _run_with_tokens(
    stack: Stack,
    segments: Segments,
    x: Float[Tensor, "b n D"],
    where: Where,
    inputs: Inputs,
    lengths: Int[Tensor, " b"] | None,
    cache: SegmentedCache | None,
    trace: Trace,
    around: tuple[int, int],
) -> tuple[Float[Tensor, "b n D"], Trace]:
    """Run the layers over a segment with memory tokens before it, and after it without a cache."""
    (before, after), n = around, x.shape[1]
    tokens = segments.get_tokens(inputs.memories, len(x)).to(x.dtype)
    begun = _begin_tokens(segments, tokens, inputs)
    x = torch.cat((tokens[:, :before], x, begun[:, :after]), dim=1)
    if after and lengths is not None:
        x = place_after(x, begun, before + lengths)
    states, trace = stack(x, where, inputs, trace, cache)
    if cache is not None:
        return states[:, before:], trace.change_exits(lambda made: made[:, before:])
    ends = torch.full((len(x),), n, device=x.device) if lengths is None else lengths
    at = before + ends[:, None] + torch.arange(after, device=x.device)
    written = states[torch.arange(len(x), device=x.device)[:, None], at]
    valid = None
    if lengths is not None:
        # A row that has ended before keeps its memories, if it has some.
        empty = (lengths == 0)[:, None]
        written = torch.where(empty[..., None], tokens, written)
        known = torch.zeros_like(empty) if inputs.memories is None else inputs.memories.seen
        valid = (known | ~empty).expand(-1, after)
    made = Memories(segments.choose_vectors((written,)), valid=valid)
    own = slice(before, before + n)
    hidden = None if trace.hidden is None else tuple(each[:, own] for each in trace.hidden)
    trace = replace(trace.change_exits(lambda made: made[:, own]), hidden=hidden, memories=made)
    return states[:, own], trace


def _begin_tokens(segments: Segments, tokens: Float[Tensor, "b p D"], inputs: Inputs) -> Float[Tensor, "b p D"]:
    """Return the vectors of the tokens after a segment: the memories, or learned ones if another document ends it."""
    if inputs.documents is None:
        return tokens
    # The last of the extended inputs is the document that the segment ends in; 0 continues that of the memories.
    continues = inputs.documents[:, -1:, None] == 0
    return torch.where(continues, tokens, segments.get_tokens(None, len(tokens)).to(tokens.dtype))


def run_segments(
    forward: Forward,
    length: int,
    tokens: Int[Tensor, "b n"],
    lengths: Int[Tensor, " b"] | None,
    inputs: Inputs | None,
    trace: Trace,
) -> tuple[Float[Tensor, "b n D"], Trace]:
    """Run a row segment by segment; gradients flow from each to those before."""
    n = tokens.shape[1]
    if n + (0 if inputs is None else inputs.num_soft_tokens) <= length:
        return forward(tokens, lengths, inputs, None, trace)
    inputs = Inputs() if inputs is None else inputs
    states: list[Tensor] = []
    traces: list[tuple[int | Tensor, Trace]] = []
    memories = inputs.memories
    for start in range(0, n, length):
        stop = min(start + length, n)
        last = None if inputs.documents is None or not start else inputs.documents[:, start - 1 : start]
        cut = replace(slice_inputs(inputs, start, stop, last), memories=memories)
        real = None if lengths is None else (lengths - start).clamp(min=0, max=stop - start)
        made, found = forward(tokens[:, start:stop], real, cut, None, trace)
        states.append(made)
        traces.append((_count_tokens(cut, stop - start) if found.losses else 0, found))
        memories, trace = found.memories, replace(trace, drawn=found.drawn)
    return torch.cat(states, dim=1), _join_traces(traces)


def _count_tokens(inputs: Inputs, n: int) -> int | Tensor:
    """Count the tokens of a segment that count in auxiliary losses of parts: n a row if all do."""
    counted = inputs.find_counted(None if inputs.hidden_tokens is None else ~inputs.hidden_tokens)
    return n if counted is None else counted.sum()


def _join_traces(traces: Sequence[tuple[int | Tensor, Trace]]) -> Trace:
    """Join the traces of segments of some tokens: losses are means over tokens, hidden vectors those of the row."""
    total, (_, last) = sum(n for n, _ in traces), traces[-1]
    total = total.clamp(min=1) if isinstance(total, Tensor) else total
    hidden = None
    if last.hidden is not None:
        hidden = tuple(
            torch.cat(calls, dim=1) for calls in zip(*(each.hidden or () for _, each in traces), strict=True)
        )
    return replace(
        last,
        hidden=hidden,
        exits=tuple(torch.cat(exits, dim=1) for exits in zip(*(each.exits for _, each in traces), strict=True)),
        losses=tuple(loss._replace(weight=loss.weight * n / total) for n, each in traces for loss in each.losses),
        maps=tuple(each for _, found in traces for each in found.maps),
    )
