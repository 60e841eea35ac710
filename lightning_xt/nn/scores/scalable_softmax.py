import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.core.visible_keys import count_visible
from lightning_xt.core.where import Where
from lightning_xt.nn.scores.base import Score
from lightning_xt.system.option_checks import check_option


class ScalableSoftmax(Score):
    """Multiply query and key, scaled by s log n: n keys that the query sees, s learned per head (SSMax).

    Nakanishi, 2025. https://arxiv.org/abs/2501.19399
    A query that sees one key has score 0, which gives it all weight as before.

    Args:
        scale_init: start of s.
    """

    backends = frozenset({"fused", "flex", "explicit"})
    bilinear = True

    def __init__(self, shape: AttentionShape, *, scale_init: float = 0.43) -> None:
        super().__init__(shape)
        check_option("score: ScalableSoftmax", "scale_init", scale_init, above=0)
        self.factor = nn.Parameter(torch.full((shape.heads, 1), scale_init))

    def scale_queries(self, q: Float[Tensor, "b h i d"], where: Where) -> Float[Tensor, "b h i d"]:
        precise = torch.promote_types(q.dtype, torch.float32)
        logs = count_visible(where).clamp(min=1).to(precise).log()
        return (q * (self.factor.to(precise) * logs[:, None])[..., None]).to(q.dtype)

    def forward(
        self, q: Float[Tensor, "b h i d"], k: Float[Tensor, "b h j d"], scale: float
    ) -> Float[Tensor, "b h i j"]:
        return q @ k.mT * scale
