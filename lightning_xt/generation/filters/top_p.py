from lightning_xt.generation.filters.base import Filter, Logits
from lightning_xt.generation.filters.vocabulary_checks import drop_after
from lightning_xt.generation.history import History
from lightning_xt.system.option_checks import check_option


class TopP(Filter):
    """Keep the smallest set of most likely tokens whose total probability reaches `p` (nucleus sampling).

    Holtzman et al., 2019. https://arxiv.org/abs/1904.09751
    In x-transformers: filter_logits_fn, filter_kwargs.

    Args:
        p: total probability of the kept tokens, above 0 and at most 1.
    """

    options = ("p",)

    def __init__(self, p: int | float) -> None:
        check_option("filters: TopP (top_p)", "p", p, above=0, most=1)
        self.p = p

    def __call__(self, logits: Logits, history: History) -> Logits:
        if self.p == 1:
            # In floating point the sum may reach 1 before the last token.
            return logits
        ordered, order = logits.sort(dim=-1, descending=True)
        probabilities = ordered.softmax(dim=-1)
        before = probabilities.cumsum(dim=-1) - probabilities
        return drop_after(logits, order, before >= self.p)
