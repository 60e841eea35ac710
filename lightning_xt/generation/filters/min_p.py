import math

from lightning_xt.generation.filters.base import Filter, Logits
from lightning_xt.generation.history import History
from lightning_xt.system.option_checks import check_option


class MinP(Filter):
    """Keep tokens with at least `p` times the probability of the most likely.

    Nguyen et al., 2024. https://arxiv.org/abs/2407.01082
    In x-transformers: filter_logits_fn, filter_kwargs.

    Args:
        p: fraction of the highest probability, from 0 to 1.
    """

    options = ("p",)

    def __init__(self, p: int | float) -> None:
        check_option("filters: MinP (min_p)", "p", p, least=0, most=1)
        self.p = p

    def __call__(self, logits: Logits, history: History) -> Logits:
        if self.p == 0:
            return logits
        return logits.masked_fill(logits < logits.amax(dim=-1, keepdim=True) + math.log(self.p), float("-inf"))
