import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.previous_tokens import get_previous
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.where import Where
from lightning_xt.nn.shifts.base import Shift
from lightning_xt.system.option_checks import check_option


class Canon(Shift):
    """Add a causal convolution of each feature over the last tokens to the input of a sublayer.

    Allen-Zhu, 2025. https://arxiv.org/abs/2512.17351
    These are the layers A (before attention) and C (before the feedforward) of the paper; B, on queries, keys and
    values, and D, inside the feedforward, are not. No document reads another one.

    Args:
        width: number of tokens that the convolution reads, the token itself included.
    """

    def __init__(self, shape: LayerShape, *, width: int = 4) -> None:
        super().__init__()
        check_option("shift: Canon", "width", width, least=2)
        self.weights = nn.Parameter(torch.empty(width, shape.dim).uniform_(-(width**-0.5), width**-0.5))

    def forward(self, x: Float[Tensor, "b n D"], where: Where, cache: CallCache | None) -> Float[Tensor, "b n D"]:
        before = get_previous(x, where, cache, "convolved", len(self.weights) - 1)
        precise = torch.promote_types(x.dtype, torch.float32)
        weights = self.weights.to(precise).unbind()
        mixed = sum((w * each for w, each in zip(weights[1:], before, strict=True)), weights[0] * x)
        return x + mixed.to(x.dtype)
