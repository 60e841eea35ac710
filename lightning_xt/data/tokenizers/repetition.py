"""A check that a tokenizer encodes a text alike each time."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from lightning_xt.data.tokenizers.base import Tokenizer


def refuse_random(tokenizer: Tokenizer, texts: Sequence[str], found: Sequence[ArrayLike]) -> None:
    """Raise a ValueError if a tokenizer encodes texts differently the second time."""
    again = tokenizer.encode_batch(texts)
    if not all(np.array_equal(one, other) for one, other in zip(again, found, strict=True)):
        raise ValueError(
            f"--data.tokenizer {type(tokenizer).__name__} encodes a text differently each time, so that no "
            "run could be repeated or resumed; make its encode and encode_batch depend on the text only"
        )
