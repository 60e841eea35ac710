"""Decoding with a cache in segments: rows end their segments at different times."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.memories import Memories
from lightning_xt.core.trace import Trace
from lightning_xt.models.segmented import Forward
from lightning_xt.models.segmented_cache import PADDING, SegmentedCache, stack_rows


@torch.no_grad()
def make_memories(forward: Forward, cache: SegmentedCache, rows: Sequence[int]) -> None:
    """Make the memories of rows whose segment is full, from its tokens."""
    for group in _group(rows, cache.remembered):
        index = torch.tensor(group, device=cache.ids.device)
        inputs = _start_inputs(cache, group)
        types = None if cache.types is None else cache.types[index]
        _, made = forward(cache.ids[index], None, replace(inputs, types=types), None, Trace())
        memories = cast(Memories, made.memories)
        cache.set_memories(index, memories)
        for row in group:
            cache.counts[row], cache.remembered[row] = 0, memories.num_tokens
            if "visible_prefix" in cache.inputs[row]:
                left = (cache.inputs[row]["visible_prefix"] - cache.length).clamp(min=0)
                cache.inputs[row] = {**cache.inputs[row], "visible_prefix": left}


def decode_segments(
    forward: Forward,
    tokens: Int[Tensor, "b n"],
    lengths: Int[Tensor, " b"] | None,
    inputs: Inputs | None,
    cache: SegmentedCache,
    trace: Trace,
) -> Float[Tensor, "b n D"]:
    """Append tokens to a cache, each row up to the end of its segment, then in the next.

    Raises:
        ValueError: the tokens or the inputs do not fit, or the trace is to keep something, which is not kept here.
    """
    rows, n = tokens.shape
    _check_decoding(cache, rows, n, inputs, trace)
    inputs = Inputs() if inputs is None else inputs
    left = [n] * rows if lengths is None else [int(each) for each in lengths.tolist()]
    done, states = [0] * rows, None
    _keep_inputs(cache, inputs)
    while any(left) or states is None:
        full = [row for row in range(rows) if left[row] and cache.counts[row] == cache.length]
        if full:
            make_memories(forward, cache, full)
        take = [min(left[row], cache.length - cache.counts[row]) for row in range(rows)]
        fresh = [row for row in range(rows) if take[row] and not cache.counts[row]]
        ragged = len(set(cache.counts)) > 1 or len(set(take)) > 1
        older = [0 if row in fresh else min(take[row], PADDING) if ragged else take[row] for row in range(rows)]
        take = [take[row] if row in fresh else older[row] for row in range(rows)]
        for group in _group(fresh, cache.remembered):
            made = _start_rows(forward, cache, group, tokens, inputs, done, take)
            states = _fill(states, made, group, done, take, n)
        if any(older) or not fresh:
            made = _continue_rows(forward, cache, tokens, inputs, done, older)
            states = _fill(states, made, list(range(rows)), done, older, n)
        left = [a - b for a, b in zip(left, take, strict=True)]
        done = [a + b for a, b in zip(done, take, strict=True)]
    return states


def _start_rows(
    forward: Forward,
    cache: SegmentedCache,
    group: Sequence[int],
    tokens: Tensor,
    inputs: Inputs,
    done: Sequence[int],
    take: Sequence[int],
) -> Tensor:
    """Begin a segment in some rows, which have equally many memories."""
    index = torch.tensor(group, device=tokens.device)
    piece, counts = _cut(tokens, group, done, take)
    types = None if inputs.types is None else _cut(inputs.types, group, done, take)[0]
    given = replace(_start_inputs(cache, group), types=types)
    begun = cache.make_empty(len(group))
    states, _ = forward(piece, counts, given, begun, Trace())
    begun.inputs = [cache.inputs[row] for row in group]
    begun.totals = [cache.totals[row] for row in group]
    begun.remembered = [cache.remembered[row] for row in group]
    begun.memories = None if cache.memories is None else cache.memories.select(index)
    begun.keep(piece, types, [take[row] for row in group])
    if list(group) == list(range(cache.num_rows)):
        cache.tokens, cache.stream = begun.tokens, begun.stream
        cache.counts, cache.totals, cache.ids, cache.types = begun.counts, begun.totals, begun.ids, begun.types
    else:
        cache.overwrite(index, begun)
    return states


def _continue_rows(
    forward: Forward, cache: SegmentedCache, tokens: Tensor, inputs: Inputs, done: Sequence[int], take: Sequence[int]
) -> Tensor:
    """Append tokens to the segments of rows that have begun."""
    rows = range(cache.num_rows)
    piece, counts = _cut(tokens, rows, done, take)
    types = None if inputs.types is None else _cut(inputs.types, rows, done, take)[0]
    names = ("visible_prefix", "condition")
    known = stack_rows([{name: each for name, each in row.items() if name in names} for row in cache.inputs])
    given = replace(
        inputs, types=types, visible_prefix=known.get("visible_prefix"), condition=known.get("condition"), memories=None
    )
    states, _ = forward(piece, counts, given, cache, Trace())
    cache.keep(piece, types, take)
    return states


def _check_decoding(cache: SegmentedCache, rows: int, n: int, inputs: Inputs | None, trace: Trace) -> None:
    """Refuse what is not kept, other rows, too many tokens, and inputs that are not decoded, by a ValueError."""
    if trace.keeps_hidden or trace.keeps_maps:
        raise ValueError(
            "a Trace that keeps hidden states or maps is not filled while segments are decoded with a cache; call the "
            "decoder without a cache"
        )
    if rows != cache.num_rows:
        raise ValueError(
            f"the cache has {cache.num_rows} row(s), but {rows} were given; use new_cache({rows}, ...), or repeat or "
            "select its rows first"
        )
    if cache.bound + n > cache.capacity:
        raise ValueError(
            f"the cache holds {cache.capacity} tokens a row, {cache.bound} are taken and {n} more were given; use "
            f"new_cache(..., capacity={cache.bound + n}) or more"
        )
    if inputs is not None and inputs.prefix is not None:
        raise ValueError(
            "Inputs(prefix=...) cannot be decoded with segments, whose memories are made of tokens; omit it"
        )
    if inputs is not None and inputs.memories is not None and not cache.empty:
        raise ValueError("Inputs(memories=...) belongs to the first forward of a cache; omit it, or use a new cache")
    if inputs is not None and inputs.condition is not None and inputs.condition.dim() == 3:
        raise ValueError("Inputs(condition=...) has one vector a token; give one vector a row to decode with segments")


def _keep_inputs(cache: SegmentedCache, inputs: Inputs) -> None:
    """Keep what rows begin with, and make sure that their memories fit."""
    given = {name: getattr(inputs, name) for name in ("condition", "context", "context_mask", "visible_prefix")}
    present = {name: value for name, value in given.items() if value is not None}
    for row, total in enumerate(cache.totals):
        # A row that has finished keeps its inputs as long as it is in the batch.
        if total == 0 and not cache.inputs[row]:
            cache.inputs[row] = {name: value[row : row + 1] for name, value in present.items()}
    if inputs.memories is None:
        return
    seen = inputs.memories.seen
    if not torch.equal(seen, seen.long().cummax(dim=1).values.bool()):
        raise ValueError("Inputs(memories=...) has gaps of unseen tokens, which are not decoded; give memories without")
    cache.memories = inputs.memories.pad(inputs.memories.num_tokens)
    cache.remembered = [int(each) for each in seen.sum(dim=1).tolist()]


def _start_inputs(cache: SegmentedCache, group: Sequence[int]) -> Inputs:
    """Return the inputs with which the segment of some rows begins, which have equally many memories."""
    known, memories = cache.remembered[group[0]], None
    if cache.memories is not None and known:
        kept = cache.memories.select(group).keep_last(known)
        memories = replace(kept, valid=None)
    given: dict[str, Any] = dict(stack_rows([cache.inputs[row] for row in group]))
    return Inputs(**given, memories=memories)


def _group(rows: Sequence[int], remembered: Sequence[int]) -> list[list[int]]:
    """Group rows by their number of memories."""
    groups: dict[int, list[int]] = {}
    for row in rows:
        groups.setdefault(remembered[row], []).append(row)
    return list(groups.values())


def _cut(
    values: Int[Tensor, "b n"], rows: Sequence[int], start: Sequence[int], count: Sequence[int]
) -> tuple[Int[Tensor, "k _"], Int[Tensor, " k"] | None]:
    """Cut `count` values from a start on out of each of some rows, padded on the right; None for equal counts."""
    width = max(count[row] for row in rows)
    if all(count[row] == width for row in rows) and len({start[row] for row in rows}) == 1:
        first = start[rows[0]]
        picked = values if len(rows) == len(values) else values[torch.tensor(list(rows), device=values.device)]
        return picked[:, first : first + width], None
    counts = torch.tensor([count[row] for row in rows], device=values.device)
    at = torch.tensor([start[row] for row in rows], device=values.device)[:, None]
    at = (at + torch.arange(width, device=values.device)).clamp(max=values.shape[1] - 1)
    picked = values[torch.tensor(list(rows), device=values.device)[:, None], at]
    return picked, None if bool((counts == width).all()) else counts


def _fill(
    states: Tensor | None, made: Tensor, rows: Sequence[int], start: Sequence[int], count: Sequence[int], n: int
) -> Tensor:
    """Put the hidden states of a piece of each row where its tokens stand."""
    if states is None and made.shape[1] == n and len(rows) == len(start):
        return made
    if states is None:
        states = made.new_zeros(len(start), n, made.shape[-1])
    for index, row in enumerate(rows):
        states[row, start[row] : start[row] + count[row]] = made[index, : count[row]]
    return states
