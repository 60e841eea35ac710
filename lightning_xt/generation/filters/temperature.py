import torch
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
        temperature = max(self.temperature, torch.finfo(logits.dtype).tiny)
        divided = logits / temperature
        # Where a tiny temperature makes them overflow, they count from the largest down, which is left at 0. Elsewhere
        # they do not: filters that follow may ask for the sign.
        fits = (divided.isfinite() | logits.isinf()).all(dim=-1, keepdim=True)
        return torch.where(fits, divided, (logits - logits.amax(dim=-1, keepdim=True)) / temperature)
