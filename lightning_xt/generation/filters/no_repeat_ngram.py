import torch
from jaxtyping import Float
from torch import Tensor

from lightning_xt.generation.filters.base import Filter
from lightning_xt.generation.filters.vocabulary_checks import count, rule_out
from lightning_xt.generation.history import History


class NoRepeatNgram(Filter):
    """Rules out words that would repeat n tokens in a row, whether they were read or drawn.

    Paulus, Xiong and Socher, 2017. https://arxiv.org/abs/1705.04304

    Where no other word is left, the likeliest of them stays.

    Args:
        n: tokens in a row that may occur once, at least 1.
    """

    def __init__(self, n: int) -> None:
        if n < 1:
            raise ValueError(f"filters: NoRepeatNgram has n {n}, which must be at least 1")
        self.n = n

    def __call__(self, logits: Float[Tensor, "b v"], history: History) -> Float[Tensor, "b v"]:
        tokens, n = history.tokens, self.n
        if tokens.shape[1] < n:
            return logits
        step = torch.arange(n - 1, device=tokens.device) - (n - 1)
        last = tokens.gather(1, (history.lengths[:, None] + step).clamp(min=0))
        grams = tokens.unfold(1, n, 1)
        # With n = 1 there is nothing to compare: every word of the past is out. Grams that reach beyond it are none.
        same = (grams[..., :-1] == last[:, None]).all(dim=-1) & history.past[:, n - 1 :]
        return rule_out(logits, count(grams[..., -1], same, logits.shape[-1]) > 0)
