import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lightning_xt.nn.normalizers.base import Normalizer
from lightning_xt.nn.normalizers.simplex import attach_gradient, center_scores


class Entmax15(Normalizer):
    """Weigh keys between softmax and sparsemax (entmax with alpha 1.5): low scores get weight exactly 0.

    Peters, Niculae and Martins, 2019. https://arxiv.org/abs/1905.05702
    The weights are the squares of half the scores less a threshold, which is exact, found by sorting.
    """

    def forward(self, scores: Float[Tensor, "b h i j"], mask: Bool[Tensor, "#b #h i j"]) -> Float[Tensor, "b h i j"]:
        precise = scores.to(torch.promote_types(scores.dtype, torch.float32))
        centered = center_scores(precise / 2, mask)
        ordered = centered.sort(dim=-1, descending=True).values
        rank = torch.arange(1, ordered.shape[-1] + 1, device=ordered.device, dtype=ordered.dtype)
        mean, mean_square = ordered.cumsum(dim=-1) / rank, ordered.square().cumsum(dim=-1) / rank
        thresholds = mean - (1 / rank - (mean_square - mean.square())).clamp(min=0).sqrt()
        support = (thresholds <= ordered).sum(dim=-1, keepdim=True)
        roots = (centered - thresholds.gather(-1, support - 1)).relu().masked_fill(~mask, 0.0)
        return attach_gradient(roots.square(), roots, precise).to(scores.dtype)
