"""A report of ids that stand for nothing."""

from lightning.pytorch.utilities import rank_zero_info

from lightning_xt.data.tokenizers.base import Tokenizer

MOSTLY_USED = 0.9
"""Fraction of `vocab_size` below which the number of ids that stand for something is reported."""


def report_unused(tokenizer: Tokenizer, what: str) -> None:
    """Report that a tokenizer, which has learned from the data called `what`, has far fewer ids than were asked for."""
    size, needed = tokenizer.vocab_size, 1 + max(set(range(tokenizer.vocab_size)).difference(tokenizer.unused))
    if needed < MOSTLY_USED * size:
        rank_zero_info(
            f"{what}: the tokenizer has {needed} ids, but --data.tokenizer.vocab_size is {size}; the others are never "
            f"generated, and --data.tokenizer.vocab_size {needed} makes the model smaller"
        )
