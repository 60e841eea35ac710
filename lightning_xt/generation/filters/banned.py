from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_xt.generation.filters.base import Filter
from lightning_xt.generation.filters.option_tensor import OptionTensor
from lightning_xt.generation.filters.vocabulary_checks import check_ids, check_vocabulary, rule_out
from lightning_xt.generation.history import History


class Banned(Filter):
    """Rules chosen words out.

    Where no other word is left, the likeliest of them stays; so it comes before filters that keep the likeliest.

    Args:
        tokens: ids of the words.
    """

    def __init__(self, tokens: Sequence[int]) -> None:
        check_ids("tokens of Banned", tokens)
        self.tokens = list(tokens)
        self._ids = OptionTensor(self.tokens, torch.long)

    def __call__(self, logits: Float[Tensor, "b v"], history: History) -> Float[Tensor, "b v"]:
        check_vocabulary("tokens of Banned", self.tokens, logits.shape[-1])
        banned = torch.zeros_like(logits[:1], dtype=torch.bool).index_fill(1, self._ids.on(logits.device), True)
        return rule_out(logits, banned)
