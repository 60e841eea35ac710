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

    Args:
        mix_scores: True to mix scores before the normalizer.
        mix_weights: True to mix weights after it.
    """

    def __init__(self, shape: AttentionShape, *, mix_scores: bool = True, mix_weights: bool = True) -> None:
        super().__init__()
        if not (mix_scores or mix_weights):
            raise ValueError(
                "score_mods: TalkingHeads has mix_scores and mix_weights false, so it mixes nothing; set one to true, "
                "or omit TalkingHeads"
            )
        self.signed = mix_weights
        self.score_mix = nn.Parameter(torch.eye(shape.heads)) if mix_scores else None
        self.weight_mix = nn.Parameter(torch.eye(shape.heads)) if mix_weights else None

    def forward(self, scores: Float[Tensor, "b h i j"], p: None = None) -> Float[Tensor, "b h i j"]:
        return scores if self.score_mix is None else _mix(scores, self.score_mix)

    def modify_weights(self, weights: Float[Tensor, "b h i j"], p: None) -> Float[Tensor, "b h i j"]:
        return weights if self.weight_mix is None else _mix(weights, self.weight_mix)


def _mix(scores: Float[Tensor, "b h i j"], mix: Float[Tensor, "h h"]) -> Float[Tensor, "b h i j"]:
    """Mix from heads (rows of the matrix) to heads (columns)."""
    return torch.einsum("bhij,hk->bkij", scores, mix.to(scores.dtype))
