import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.normalizers.base import Normalizer
from lightning_xt.system.option_checks import check_option


class Softpick(Normalizer):
    """Weigh a key by relu(e^score - 1), divided by the sum of |e^score - 1|: a negative score gets no weight.

    Zuhri, Fuadi and Aji, 2025. https://arxiv.org/abs/2504.20966
    Weights of a query sum to less than 1, to 0 if all scores are negative, so that no key must serve as a sink.

    Args:
        eps: added to the sum, relative to the largest e^score, or to 1 if all scores are negative.
    """

    drops_negative = True

    def __init__(self, shape: AttentionShape, *, eps: float = 1e-6) -> None:
        super().__init__(shape)
        check_option("normalizer: Softpick", "eps", eps, above=0)
        self.eps = eps

    def forward(self, scores: Float[Tensor, "b h i j"], mask: Bool[Tensor, "#b #h i j"]) -> Float[Tensor, "b h i j"]:
        # The exponential of 0 less 1 is 0, so that hidden scores count nowhere.
        precise = scores.to(torch.promote_types(scores.dtype, torch.float32)).masked_fill(~mask, 0.0)
        # Divided by the largest exponential, so that none overflows.
        largest = precise.detach().amax(dim=-1, keepdim=True).clamp(min=0)
        shifted = (precise - largest).exp() - (-largest).exp()
        return (shifted.relu() / (shifted.abs().sum(dim=-1, keepdim=True) + self.eps)).to(scores.dtype)
