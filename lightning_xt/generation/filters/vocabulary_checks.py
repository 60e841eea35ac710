"""What filters do with words: rule them out, count them, check those that an option names."""

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

LARGEST = 1_000_000
"""What an option may add to a logit: more than any logit, and too little to overflow."""


def rule_out(logits: Float[Tensor, "b v"], words: Bool[Tensor, "#b v"]) -> Float[Tensor, "b v"]:
    """Minus infinity for words; where that would leave none, the likeliest of those that were left stay."""
    left = logits.masked_fill(words, float("-inf"))
    none = left.amax(dim=-1, keepdim=True) == float("-inf")
    return torch.where(none & (logits == logits.amax(dim=-1, keepdim=True)), logits, left)


def count(tokens: Int[Tensor, "b m"], mask: Bool[Tensor, "b m"], size: int) -> Int[Tensor, "b v"]:
    """How often each word of a vocabulary stands where the mask is True; elsewhere tokens may be anything."""
    return tokens.new_zeros(tokens.shape[0], size).scatter_add(1, tokens.masked_fill(~mask, 0), mask.to(tokens.dtype))


def check_ids(option: str, ids: Iterable[int]) -> None:
    """Refuses ids that no vocabulary has.

    Args:
        option: it and its filter, for the message.
        ids: that it names.

    Raises:
        ValueError: an id below 0.
    """
    lowest = min(ids, default=0)
    if lowest < 0:
        raise ValueError(f"filters: {option} has token {lowest}, but ids start at 0; leave it out")


def check_vocabulary(option: str, ids: Iterable[int], size: int) -> None:
    """Refuses ids that this vocabulary does not have.

    Args:
        option: it and its filter, for the message.
        ids: that it names.
        size: words of the vocabulary.

    Raises:
        ValueError: an id outside.
    """
    highest = max(ids, default=0)
    if highest >= size:
        raise ValueError(
            f"filters: {option} has token {highest}, outside the vocabulary of 0 to {size - 1}; leave it out"
        )
