"""Sequence of an evaluation that figures show."""

from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.data.tokenizers.base import Tokenizer


class Example(NamedTuple):
    """First sequence of a validation split, or its first pair.

    Args:
        read: tokens that the network reads; of a pair, of its target.
        predicted: token that is predicted at each of them. None = the network does not predict the next token.
        tokenizer: decodes both.
        inputs: inputs of the network besides ids.
        source: source ids of a pair, without padding.
        source_tokenizer: decodes the source.
    """

    read: Int[Tensor, "1 n"]
    predicted: Int[Tensor, "1 n"] | None
    tokenizer: Tokenizer
    inputs: Inputs | None = None
    source: Int[Tensor, "1 m"] | None = None
    source_tokenizer: Tokenizer | None = None

    @property
    def tokens(self) -> Int[Tensor, "1 n+1"] | None:
        """Tokens of which each is predicted from those before. None if the network does not predict the next token."""
        return None if self.predicted is None else torch.cat((self.read, self.predicted[:, -1:]), dim=1)
