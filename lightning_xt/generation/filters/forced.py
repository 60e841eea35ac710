from collections.abc import Sequence

import torch

from lightning_xt.core.option_tensor import OptionTensor
from lightning_xt.generation.filters.base import Filter, Logits
from lightning_xt.generation.filters.vocabulary_checks import check_ids, check_vocabulary
from lightning_xt.generation.history import History


class Forced(Filter):
    """Force a completion to begin with given tokens, in order.

    The next forced token gets a logit of 0, whatever earlier filters did to it.

    Args:
        tokens: ids to begin with.
    """

    options = ("tokens",)

    def __init__(self, tokens: Sequence[int]) -> None:
        check_ids("tokens of Forced", tokens)
        self.tokens = list(tokens)
        self._ids = OptionTensor(self.tokens, torch.long)

    def __call__(self, logits: Logits, history: History) -> Logits:
        check_vocabulary("tokens of Forced", self.tokens, logits.shape[-1])
        if not self.tokens:
            return logits
        generated = (history.lengths - history.prompts)[:, None]
        token = self._ids.to(logits.device)[generated.clamp(max=len(self.tokens) - 1)]
        only = torch.full_like(logits, float("-inf")).scatter(1, token, 0.0)
        return torch.where(generated < len(self.tokens), only, logits)
