import torch
from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.autocast import disable_autocast
from lightning_xt.nn.scores.base import Score


class NegativeDistance(Score):
    """Score a pair by minus the squared distance between query and key, scaled by the root of their width.

    Kim, Papamakarios and Mnih, 2020. https://arxiv.org/abs/2006.04710
    The paper also projects queries and keys by one matrix, for its Lipschitz bound; here each has its own. Scores are
    computed in float32 or better, because they are small differences of large numbers.
    In x-transformers: attn_l2_distance.
    """

    negative = True

    def forward(
        self, q: Float[Tensor, "b h i d"], k: Float[Tensor, "b h j d"], scale: float
    ) -> Float[Tensor, "b h i j"]:
        precise = torch.promote_types(q.dtype, torch.float32)
        with disable_autocast(q):
            q, k = q.to(precise), k.to(precise)
            squares = q.square().sum(dim=-1)[..., :, None] + k.square().sum(dim=-1)[..., None, :]
            return (2 * (q @ k.mT) - squares) * scale
