from jaxtyping import Float
from torch import Tensor

from lightning_xt.generation.filters.base import Filter
from lightning_xt.generation.filters.vocabulary_checks import LARGEST, count
from lightning_xt.generation.history import History


class PresencePenalty(Filter):
    """Subtracts a penalty from the logits of words that were drawn before; the prompt does not count.

    Args:
        penalty: number to subtract; below 0 it makes repetition likelier.
    """

    def __init__(self, penalty: int | float) -> None:
        if not abs(penalty) <= LARGEST:
            raise ValueError(
                f"filters: PresencePenalty has penalty {penalty}, which must be from -{LARGEST} to {LARGEST}"
            )
        self.penalty = penalty

    def __call__(self, logits: Float[Tensor, "b v"], history: History) -> Float[Tensor, "b v"]:
        present = count(history.tokens, history.drawn, logits.shape[-1]) > 0
        return logits - self.penalty * present.to(logits.dtype)
