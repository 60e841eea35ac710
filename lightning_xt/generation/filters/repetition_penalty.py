import torch
from jaxtyping import Float
from torch import Tensor

from lightning_xt.generation.filters.base import Filter
from lightning_xt.generation.filters.vocabulary_checks import count
from lightning_xt.generation.history import History


class RepetitionPenalty(Filter):
    """Divides the logits of words that were read or drawn by a factor, or multiplies those below 0 by it.

    Keskar et al., 2019. https://arxiv.org/abs/1909.05858

    Args:
        factor: 1 changes nothing, more makes repetition rarer, less makes it likelier; from 0.001 to 1000.
    """

    def __init__(self, factor: int | float) -> None:
        if not 0.001 <= factor <= 1000:
            raise ValueError(
                f"filters: RepetitionPenalty has factor {factor}, which must be from 0.001 to 1000; 1 changes nothing"
            )
        self.factor = factor

    def __call__(self, logits: Float[Tensor, "b v"], history: History) -> Float[Tensor, "b v"]:
        repeated = count(history.tokens, history.past, logits.shape[-1]) > 0
        penalized = torch.where(logits > 0, logits / self.factor, logits * self.factor)
        return torch.where(repeated, penalized, logits)
