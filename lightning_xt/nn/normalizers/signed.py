from jaxtyping import Bool, Float
from torch import Tensor

from lightning_xt.nn.normalizers.base import Normalizer, softmax_over_visible


class Signed(Normalizer):
    """Weigh keys by a softmax of the absolute scores, with the signs of the scores (Cog attention).

    Lv et al., 2024. https://arxiv.org/abs/2411.07176
    In x-transformers: attn_cog_signed.
    """

    signed = True

    def forward(self, scores: Float[Tensor, "b h i j"], mask: Bool[Tensor, "#b #h i j"]) -> Float[Tensor, "b h i j"]:
        return (softmax_over_visible(scores.abs(), mask) * scores.sign()).to(scores.dtype)
