import torch

from lightning_xt.generation.filters.base import Filter, Logits
from lightning_xt.generation.filters.vocabulary_checks import count_tokens, mask_tokens
from lightning_xt.generation.history import History
from lightning_xt.system.option_checks import check_option


class NoRepeatNgram(Filter):
    """Mask tokens that would repeat an n-gram of the prompt or the completion.

    Paulus, Xiong and Socher, 2017. https://arxiv.org/abs/1705.04304

    If no other token is left, the most likely of them stays. Control ids are never masked, and no n-gram holds one.

    Args:
        n: tokens of an n-gram, at least 1.
    """

    options = ("n",)

    def __init__(self, n: int) -> None:
        check_option("filters: NoRepeatNgram", "n", n, least=1)
        self.n = n

    def __call__(self, logits: Logits, history: History) -> Logits:
        tokens, n = history.tokens, self.n
        if tokens.shape[1] < n:
            return logits
        step = torch.arange(n - 1, device=tokens.device) - (n - 1)
        last = tokens.gather(1, (history.lengths[:, None] + step).clamp(min=0))
        grams = tokens.unfold(1, n, 1)
        # N-grams that reach beyond the past, or hold a control id, do not count.
        counts = (history.past & history.text).unfold(1, n, 1).all(dim=-1)
        # With n = 1 there is nothing to compare: every past token is masked.
        same = (grams[..., :-1] == last[:, None]).all(dim=-1) & counts
        return mask_tokens(logits, count_tokens(grams[..., -1], same, logits.shape[-1]) > 0)
