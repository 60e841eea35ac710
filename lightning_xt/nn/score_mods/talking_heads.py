import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.score_mods.base import ScoreMod


class TalkingHeads(ScoreMod):
    """Mix the scores of heads before the normalizer and their weights after it; the start is the identity.

    Shazeer et al., 2020. https://arxiv.org/abs/2003.02436
    Both mixes are square here; the paper also lets the number of heads change between them.
    In x-transformers: attn_pre_talking_heads, attn_post_talking_heads.
    """

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__()
        self.score_mix = nn.Parameter(torch.eye(shape.heads))
        self.weight_mix = nn.Parameter(torch.eye(shape.heads))

    def forward(self, scores: Float[Tensor, "b h i j"], p: None = None) -> Float[Tensor, "b h i j"]:
        return torch.einsum("bhij,hk->bkij", scores, self.score_mix.to(scores.dtype))

    def modify_weights(self, weights: Float[Tensor, "b h i j"], p: None) -> Float[Tensor, "b h i j"]:
        return torch.einsum("bhij,hk->bkij", weights, self.weight_mix.to(weights.dtype))
