import torch

from lightning_xt.generation.filters.base import Filter, Logits
from lightning_xt.generation.filters.vocabulary_checks import drop_after
from lightning_xt.generation.history import History
from lightning_xt.system.option_checks import check_option


class Typical(Filter):
    """Keep the tokens whose surprisal is closest to the entropy, until their total probability reaches `p`.

    Meister, Pimentel, Wiher and Cotterell, 2022. https://arxiv.org/abs/2202.00666

    The most likely token is not always among them. Of equally close tokens, lower ids come first.

    Args:
        p: total probability of the kept tokens, above 0 and at most 1.
    """

    options = ("p",)

    def __init__(self, p: int | float) -> None:
        check_option("filters: Typical", "p", p, above=0, most=1)
        self.p = p

    def __call__(self, logits: Logits, history: History) -> Logits:
        if self.p == 1:
            # In floating point the sum may reach 1 before the last token.
            return logits
        log_probs = logits.log_softmax(dim=-1)
        probabilities = log_probs.exp()
        entropy = torch.special.entr(probabilities).sum(dim=-1, keepdim=True)
        order = (log_probs + entropy).abs().sort(dim=-1, stable=True).indices
        ordered = probabilities.gather(-1, order)
        before = ordered.cumsum(dim=-1) - ordered
        return drop_after(logits, order, before >= self.p)
