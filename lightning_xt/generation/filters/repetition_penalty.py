import torch

from lightning_xt.generation.filters.base import Filter, Logits
from lightning_xt.generation.filters.vocabulary_checks import count_tokens
from lightning_xt.generation.history import History
from lightning_xt.system.option_checks import check_option


class RepetitionPenalty(Filter):
    """Divide the positive logits of earlier tokens, prompt included, by a factor; multiply the negative ones.

    Keskar et al., 2019. https://arxiv.org/abs/1909.05858
    Departs from it in that control ids, such as the end, are exempt.

    Args:
        factor: 1 changes nothing, above 1 repetition is less likely, below 1 more; from 0.001 to 1000.
    """

    options = ("factor",)

    def __init__(self, factor: int | float) -> None:
        check_option("filters: RepetitionPenalty", "factor", factor, least=0.001, most=1000)
        self.factor = factor

    def __call__(self, logits: Logits, history: History) -> Logits:
        repeated = count_tokens(history.tokens, history.past & history.text, logits.shape[-1]) > 0
        penalized = torch.where(logits > 0, logits / self.factor, logits * self.factor)
        return torch.where(repeated, penalized, logits)
