import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.core.where import Where
from lightning_xt.nn.normalizers.base import Normalizer


class StickBreaking(Normalizer):
    """Let each key, from the query back, take the sigmoid of its score of the weight that is left (stick breaking).

    Tan et al., 2024. https://arxiv.org/abs/2410.17980
    Recent keys come first, so that no positions are needed. A token does not see itself, as in the paper.
    Persistent keys come last.

    Args:
        sees_itself: True if the token itself is the first key.
    """

    looks_back = True

    def __init__(self, shape: AttentionShape, *, sees_itself: bool = False) -> None:
        super().__init__(shape)
        if not shape.causal or shape.context_dim is not None:
            raise ValueError(
                "normalizer: StickBreaking counts back from each query, so it serves causal self-attention only; "
                "choose another"
            )
        self.sees_itself = sees_itself

    def weigh(self, scores: Float[Tensor, "b h i j"], where: Where) -> Float[Tensor, "b h i j"]:
        mask = where.dense()
        if not self.sees_itself:
            keys, queries = (where.keys, where.queries) if where.order is None else (where.order, where.order)
            itself = (queries[..., :, None] == keys[..., None, :])[:, None]
            mask = mask & ~F.pad(itself, (where.memory, 0))
        if not where.cached:
            weights: Tensor = self(scores, mask)
            return weights
        # A window's cache is a ring: its slots are not in the order of positions.
        order = where.memory + where.keys.argsort(dim=-1)
        first = torch.arange(where.memory, device=order.device).expand(order.shape[0], -1)
        order = torch.cat((first, order), dim=-1)[:, None, None].expand_as(scores)
        sorted_weights: Tensor = self(scores.gather(-1, order), mask.expand_as(scores).gather(-1, order))
        return torch.zeros_like(scores).scatter(-1, order, sorted_weights)

    def forward(self, scores: Float[Tensor, "b h i j"], mask: Bool[Tensor, "#b #h i j"]) -> Float[Tensor, "b h i j"]:
        """Compute the weights of keys in order, the most recent one last."""
        precise = scores.to(torch.promote_types(scores.dtype, torch.float32))
        left = F.logsigmoid(-precise).masked_fill(~mask, 0.0)
        later = left.flip(-1).cumsum(dim=-1).flip(-1) - left
        return (F.logsigmoid(precise) + later).exp().masked_fill(~mask, 0.0).to(scores.dtype)
