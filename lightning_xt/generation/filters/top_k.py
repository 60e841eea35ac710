from lightning_xt.generation.filters.base import Filter, Logits
from lightning_xt.generation.history import History
from lightning_xt.system.option_checks import check_option


class TopK(Filter):
    """Keep the `k` most likely tokens, and all that are as likely as the last of them.

    Fan, Lewis and Dauphin, 2018. https://arxiv.org/abs/1805.04833
    In x-transformers: filter_logits_fn, filter_kwargs.

    Args:
        k: tokens to keep, at least 1.
    """

    options = ("k",)

    def __init__(self, k: int) -> None:
        check_option("filters: TopK (top_k)", "k", k, least=1)
        self.k = k

    def __call__(self, logits: Logits, history: History) -> Logits:
        least = logits.topk(min(self.k, logits.shape[-1]), dim=-1).values[:, -1:]
        return logits.masked_fill(logits < least, float("-inf"))
