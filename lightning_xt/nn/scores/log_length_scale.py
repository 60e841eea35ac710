import math

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.core.visible_keys import count_visible
from lightning_xt.core.where import Where
from lightning_xt.nn.scores.base import Score
from lightning_xt.system.option_checks import check_option


class LogLengthScale(Score):
    """Multiply query and key, scaled by the logarithm of the number of keys that the query sees.

    Chiang and Cholak, 2022. https://arxiv.org/abs/2202.12172
    Attention to many keys stays as sharp as to few. The logarithm is divided by that of a length at which the scores
    are those of DotProduct.

    Args:
        length: number of keys at which nothing changes, such as the length in training.
    """

    backends = frozenset({"fused", "flex", "explicit"})
    bilinear = True

    def __init__(self, shape: AttentionShape, *, length: int = 512) -> None:
        super().__init__(shape)
        check_option("score: LogLengthScale", "length", length, least=2)
        self.length = length

    def scale_queries(self, q: Float[Tensor, "b h i d"], where: Where) -> Float[Tensor, "b h i d"]:
        precise = torch.promote_types(q.dtype, torch.float32)
        factor = count_visible(where).clamp(min=1).to(precise).log() / math.log(self.length)
        return (q * factor[:, None, :, None]).to(q.dtype)

    def forward(
        self, q: Float[Tensor, "b h i d"], k: Float[Tensor, "b h j d"], scale: float
    ) -> Float[Tensor, "b h i j"]:
        return q @ k.mT * scale
