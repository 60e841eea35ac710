"""Tokens of a vocabulary in filters: mask them, count them, check the ids that an option names."""

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

MAX_LOGIT_BIAS = 1_000_000
"""Largest number that an option may add to a logit: more than any logit, and too little to overflow."""


def mask_tokens(logits: Float[Tensor, "b v"], tokens: Bool[Tensor, "#b v"]) -> Float[Tensor, "b v"]:
    """Set tokens to minus infinity; if none would stay, keep the most likely of those that were left."""
    masked = logits.masked_fill(tokens, float("-inf"))
    none_left = masked.amax(dim=-1, keepdim=True) == float("-inf")
    return torch.where(none_left & (logits == logits.amax(dim=-1, keepdim=True)), logits, masked)


def drop_after(
    logits: Float[Tensor, "b v"], order: Int[Tensor, "b v"], drop: Bool[Tensor, "b v"]
) -> Float[Tensor, "b v"]:
    """Set tokens to minus infinity. `drop` is in an order whose first token always stays: options may round to 0."""
    drop = drop.index_fill(-1, order.new_zeros(1), False)
    return logits.masked_fill(drop.scatter(-1, order, drop), float("-inf"))


def count_tokens(tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"], size: int) -> Int[Tensor, "b v"]:
    """Count each token of a vocabulary where the mask is True; elsewhere ids may be invalid."""
    return tokens.new_zeros(tokens.shape[0], size).scatter_add(1, tokens.masked_fill(~mask, 0), mask.to(tokens.dtype))


def check_ids(option: str, ids: Iterable[int]) -> None:
    """Refuse ids below 0 by a ValueError that names the option and its filter."""
    lowest = min(ids, default=0)
    if lowest < 0:
        raise ValueError(f"filters: {option} has token {lowest}, but ids start at 0; omit it")


def check_vocabulary(option: str, ids: Iterable[int], size: int) -> None:
    """Refuse ids outside a vocabulary of `size` tokens by a ValueError that names the option and its filter."""
    highest = max(ids, default=0)
    if highest >= size:
        raise ValueError(f"filters: {option} has token {highest}, outside the vocabulary of 0 to {size - 1}; omit it")
