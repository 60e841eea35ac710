from jaxtyping import Float
from torch import Tensor

from lightning_xt.generation.filters.base import Filter
from lightning_xt.generation.history import History

SMALLEST, LARGEST = 1e-20, 1e20


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
        # Beyond these 32 bits overflow, and they already leave only the likeliest, or make all as likely. Logits are
        # not moved: filters that follow may ask for their sign.
        return logits / min(max(self.temperature, SMALLEST), LARGEST)
