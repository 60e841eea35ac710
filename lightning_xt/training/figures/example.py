"""Sequence, or pair, of an evaluation that figures show."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lightning_xt.core.batch import EvaluationPairs
from lightning_xt.core.inputs import Inputs
from lightning_xt.data.tokenizers.base import Tokenizer


class Example(NamedTuple):
    """Sequence or pair of a validation split.

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


def choose_pair(
    pairs: EvaluationPairs, real: Bool[Tensor, "b n"] | None, most: int
) -> tuple[Int[Tensor, "1 m"], Int[Tensor, "1 k"]]:
    """Choose the pair of a batch with the longest target of at most this number of tokens; return source and target.

    Args:
        pairs: a batch.
        real: True for target tokens after the first that are not padding. None = all.
        most: tokens of a source, and of a target after its first. Both are cut if all targets are longer.
    """
    every = torch.ones_like(pairs.tgt[:, 1:], dtype=torch.bool) if real is None else real
    lengths = every.sum(dim=1)
    row = int(torch.where(lengths <= most, lengths, 0).argmax())
    source = pairs.src[row : row + 1, pairs.src_mask[row]]
    return source[:, :most], pairs.tgt[row : row + 1, : min(most, int(lengths[row])) + 1]
