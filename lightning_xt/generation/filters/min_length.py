import torch

from lightning_xt.generation.filters.base import Filter, Logits
from lightning_xt.generation.filters.vocabulary_checks import mask_tokens
from lightning_xt.generation.history import History
from lightning_xt.system.option_checks import check_option


class MinLength(Filter):
    """Mask the end token until a completion has a minimum length; do nothing without an end token.

    If no other token is left, the end token stays.

    Args:
        length: tokens to generate before the end token, at least 0.
    """

    options = ("length",)

    def __init__(self, length: int) -> None:
        check_option("filters: MinLength", "length", length, least=0)
        self.length = length

    def __call__(self, logits: Logits, history: History) -> Logits:
        if history.end is None:
            return logits
        end = torch.arange(logits.shape[-1], device=logits.device) == history.end
        return mask_tokens(logits, end & (history.lengths - history.prompts < self.length)[:, None])
