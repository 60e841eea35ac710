from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.scores.base import Score
from lightning_xt.system.option_checks import check_option


class DotProduct(Score):
    """Multiply query and key, scaled by the root of their width.

    Vaswani et al., 2017. https://arxiv.org/abs/1706.03762

    Args:
        scale: factor of the products. None = one divided by the root of the width. T5 has 1, Gemma 2 a number of its
            own, such as 144^-0.5 in the model of 27B.
    """

    backends = frozenset({"fused", "flex", "explicit"})
    bilinear = True

    def __init__(self, shape: AttentionShape, *, scale: float | None = None) -> None:
        super().__init__(shape)
        check_option("score: DotProduct", "scale", scale, above=0)
        self.scale = scale

    def choose_scale(self, usual: float) -> float:
        return usual if self.scale is None else self.scale

    def forward(
        self, q: Float[Tensor, "b h i d"], k: Float[Tensor, "b h j d"], scale: float
    ) -> Float[Tensor, "b h i j"]:
        return q @ k.mT * scale
