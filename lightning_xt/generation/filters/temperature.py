from jaxtyping import Float
from torch import Tensor

from lightning_xt.generation.filters.base import Filter
from lightning_xt.generation.history import History


class Temperature(Filter):
    """Divides logits by a temperature: below 1 likely words become likelier, above 1 the choice widens.

    Args:
        temperature: divisor, above 0.
    """

    def __init__(self, temperature: int | float) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, not {temperature}; 0 itself means greedy decoding")
        self.temperature = temperature

    def __call__(self, logits: Float[Tensor, "b v"], history: History) -> Float[Tensor, "b v"]:
        # From the largest down, so that a tiny temperature leaves it at 0 instead of overflowing.
        return (logits - logits.amax(dim=-1, keepdim=True)) / self.temperature
