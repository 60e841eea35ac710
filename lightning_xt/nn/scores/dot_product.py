from jaxtyping import Float
from torch import Tensor

from lightning_xt.nn.scores.base import Score


class DotProduct(Score):
    """Multiply query and key, scaled by the root of their width.

    Vaswani et al., 2017. https://arxiv.org/abs/1706.03762
    """

    backends = frozenset({"fused", "flex", "explicit"})
    bilinear = True

    def forward(
        self, q: Float[Tensor, "b h i d"], k: Float[Tensor, "b h j d"], scale: float
    ) -> Float[Tensor, "b h i j"]:
        return q @ k.mT * scale
