"""Inputs of a segment together with those of the tokens around it."""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.functional import pad

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.memories import Memories


def surround_inputs(
    inputs: Inputs,
    n: int,
    before: int,
    after: int,
    lengths: Int[Tensor, " b"] | None,
    memories: Memories | None,
    device: torch.device,
) -> Inputs:
    """Extend the inputs of n tokens to `before` remembered ones in front, and `after` ones to write memories with.

    The tokens to write follow the last real token of a row, of which `lengths` are real.

    Raises:
        ValueError: a mask or a bias of pairs of tokens, with tokens after rows of different lengths.
    """
    if not before and not after:
        return inputs
    _check_surrounded(inputs, before, None if not after else lengths)
    made: dict[str, Any] = {
        name: _surround(pair, n, before, after, lengths)
        for name, pair in _pair_inputs(inputs, memories).items()
        if any(each is not None for each in pair)
    }
    counted = torch.ones(1, n, dtype=torch.bool, device=device) if inputs.scored is None else inputs.scored
    return replace(
        inputs,
        **made,
        scored=pad(counted, (before, after), value=False),
        visible_prefix=None if inputs.visible_prefix is None else before + inputs.visible_prefix,
        mask=None if inputs.mask is None else pad(inputs.mask, (before, after) * 2, value=True),
        positions=None if inputs.positions is None else _extend_positions(inputs.positions, before, after),
        bias=None if inputs.bias is None else pad(inputs.bias, (before, after) * 2),
        tokens=_join_tokens(inputs, memories),
        types=None,
    )


def _check_surrounded(inputs: Inputs, before: int, lengths: Int[Tensor, " b"] | None) -> None:
    """Refuse inputs that say nothing of `before` remembered tokens, or of those after rows of different lengths."""
    if lengths is not None and not (inputs.mask is None and inputs.bias is None):
        raise ValueError(
            "Inputs(mask=..., bias=...) of rows of different lengths says nothing of the memory tokens after them; "
            "give rows of one length, or omit it"
        )
    if before and inputs.visible_prefix is not None and inputs.documents is not None:
        raise ValueError(
            "Inputs(visible_prefix=...) counts from the start of each document, Inputs(memories=...) stand before the "
            "first one only; join the documents, omit visible_prefix, or give rows that fit into one segment"
        )


def _pair_inputs(inputs: Inputs, memories: Memories | None) -> dict[str, tuple[Tensor | None, Tensor | None]]:
    """Pair the inputs of each token of a segment with those of the remembered tokens, by name."""
    documents = hidden = condition = None
    if memories is not None:
        documents, condition = memories.documents, memories.condition
        hidden = None if memories.valid is None else ~memories.valid
    own = inputs.condition if inputs.condition is not None and inputs.condition.dim() == 3 else None
    return {
        "documents": (inputs.documents, documents),
        "hidden_tokens": (inputs.hidden_tokens, hidden),
        "condition": (own, condition),
    }


def _extend_positions(positions: Int[Tensor, "b n"], before: int, after: int) -> Int[Tensor, "b _"]:
    """Put the positions of remembered tokens before, and those of tokens to write after."""
    (rows, n), device = positions.shape, positions.device
    first = torch.arange(before, device=device).expand(rows, -1)
    last = before + n + torch.arange(after, device=device).expand(rows, -1)
    return torch.cat((first, before + positions, last), dim=1)


def _surround(
    values: tuple[Tensor | None, Tensor | None], n: int, before: int, after: int, lengths: Int[Tensor, " b"] | None
) -> Tensor:
    """Join values of the segment and of remembered tokens, and those of its last token for the tokens after it."""
    own, earlier = values
    known = next(each for each in values if each is not None)
    rows, rest = len(known), known.shape[2:]
    if own is None:
        own = known.new_zeros(rows, n, *rest)
    if earlier is None:
        # Nobody hides them, their document is that which the first one continues, their condition the first token's.
        vectors = own.is_floating_point()
        earlier = own[:, :1].expand(-1, before, *rest) if vectors else known.new_zeros(rows, before, *rest)
    if not after:
        return torch.cat((earlier, own), dim=1)
    ends = torch.full((rows,), n, device=own.device) if lengths is None else lengths
    index = torch.arange(rows, device=own.device)
    last = own[index, (ends - 1).clamp(min=0)][:, None].expand(-1, after, *rest)
    if own.dtype == torch.bool:
        last = torch.zeros_like(last)
    whole = torch.cat((earlier, own, last), dim=1)
    return whole if lengths is None else place_after(whole, last, before + lengths)


def place_after(whole: Tensor, values: Tensor, ends: Int[Tensor, " b"]) -> Tensor:
    """Put values at each row's end, instead of what is there."""
    at = ends[:, None] + torch.arange(values.shape[1], device=ends.device)
    return whole.scatter(1, at.view(*at.shape, *[1] * (whole.dim() - 2)).expand_as(values), values)


def _join_tokens(inputs: Inputs, memories: Memories | None) -> Tensor | None:
    if inputs.tokens is None or memories is None or memories.tokens is None:
        return None
    return torch.cat((memories.tokens, inputs.tokens), dim=1)


def slice_inputs(inputs: Inputs, start: int, stop: int, last: Tensor | None) -> Inputs:
    """Cut the inputs of one segment out of those of a row; `last` is the document number of the token before.

    Raises:
        ValueError: an input describes pairs of tokens, or their positions, over several segments.
    """
    for name in ("mask", "bias", "positions", "prefix", "keys_values"):
        if getattr(inputs, name) is not None:
            raise ValueError(
                f"Inputs({name}=...) belongs to one segment, but a row has {stop} tokens or more and a segment "
                f"{stop - start} at most; omit it, or raise segments.length"
            )
    cut = {name: getattr(inputs, name) for name in ("types", "hidden_tokens", "scored", "documents")}
    made = {name: None if value is None else value[:, start:stop] for name, value in cut.items()}
    if made["documents"] is not None and last is not None:
        made["documents"] = made["documents"] - last
    condition, prefix = inputs.condition, inputs.visible_prefix
    return replace(
        inputs,
        **made,
        condition=condition[:, start:stop] if condition is not None and condition.dim() == 3 else condition,
        visible_prefix=None if prefix is None else (prefix - start).clamp(min=0, max=stop - start),
    )
