from jaxtyping import Bool, Float
from torch import Tensor

from lightning_xt.nn.normalizers.base import Normalizer, softmax_over_visible


class Softmax(Normalizer):
    """Exponentiate scores and divide by their sum over the keys, in float32 or better.

    Vaswani et al., 2017. https://arxiv.org/abs/1706.03762
    The weights of a query that sees no key are 0.
    """

    backends = frozenset({"fused", "flex", "explicit"})

    def forward(self, scores: Float[Tensor, "b h i j"], mask: Bool[Tensor, "#b #h i j"]) -> Float[Tensor, "b h i j"]:
        return softmax_over_visible(scores, mask).to(scores.dtype)
