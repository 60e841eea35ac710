import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.normalizers.base import Normalizer, replace_gradient, softmax_over_visible
from lightning_xt.system.option_checks import check_option


class TopKSoftmax(Normalizer):
    """Weigh only the keys with the highest scores of each query, by a softmax over them.

    Zhao et al., 2019 (Explicit Sparse Transformer). https://arxiv.org/abs/1912.11637
    A query that sees no more than `num_keys` keys weighs all of them. Keys that tie with the last one are weighed too.
    The straight-through gradient follows Horuz et al., 2025, https://arxiv.org/abs/2505.22074, who replace the gradient
    of a rectifier by a smooth one.
    In x-transformers: attn_sparse_topk, attn_sparse_topk_straight_through; fails there with fewer keys than k.

    Args:
        num_keys: number of keys that a query weighs.
        straight_through: True if gradients are those of a softmax over all keys, so that the others learn too.
    """

    def __init__(self, shape: AttentionShape, *, num_keys: int = 8, straight_through: bool = False) -> None:
        super().__init__(shape)
        check_option("normalizer: TopKSoftmax", "num_keys", num_keys, least=1)
        self.num_keys, self.straight_through = num_keys, straight_through

    def forward(self, scores: Float[Tensor, "b h i j"], mask: Bool[Tensor, "#b #h i j"]) -> Float[Tensor, "b h i j"]:
        floor = torch.finfo(scores.dtype).min
        candidates = hidden = scores.masked_fill(~mask, floor)
        if torch.compiler.is_exporting():
            # Such a program serves any number of keys, even fewer than are chosen.
            candidates = F.pad(hidden, (0, self.num_keys), value=floor)
        least = candidates.topk(min(self.num_keys, candidates.shape[-1]), dim=-1).values[..., -1:]
        # Equal keys have scores that differ by rounding, which changes with the number of rows and tokens.
        rounding = 16 * torch.finfo(torch.promote_types(scores.dtype, torch.float32)).eps
        weights = softmax_over_visible(scores, mask & (hidden >= least - rounding * (1 + least.abs())))
        if self.straight_through:
            weights = replace_gradient(weights, softmax_over_visible(scores, mask))
        return weights.to(scores.dtype)
