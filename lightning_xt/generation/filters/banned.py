from collections.abc import Sequence

import torch

from lightning_xt.core.option_tensor import OptionTensor
from lightning_xt.generation.filters.base import Filter, Logits
from lightning_xt.generation.filters.vocabulary_checks import check_ids, check_vocabulary, mask_tokens
from lightning_xt.generation.history import History


class Banned(Filter):
    """Mask given tokens.

    If no other token is left, the most likely of them stays; so place it before filters that keep the most likely.

    Args:
        tokens: ids to mask.
    """

    options = ("tokens",)

    def __init__(self, tokens: Sequence[int]) -> None:
        check_ids("tokens of Banned", tokens)
        self.tokens = list(tokens)
        self._ids = OptionTensor(self.tokens, torch.long)

    def __call__(self, logits: Logits, history: History) -> Logits:
        check_vocabulary("tokens of Banned", self.tokens, logits.shape[-1])
        banned = torch.zeros_like(logits[:1], dtype=torch.bool).index_fill(1, self._ids.to(logits.device), True)
        return mask_tokens(logits, banned)
