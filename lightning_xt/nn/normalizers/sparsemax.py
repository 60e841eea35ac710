import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lightning_xt.nn.normalizers.base import Normalizer
from lightning_xt.nn.normalizers.simplex import attach_gradient, center_scores


class Sparsemax(Normalizer):
    """Project the scores onto the simplex: the weights are the scores less a threshold, and 0 below it.

    Martins and Astudillo, 2016. https://arxiv.org/abs/1602.02068
    The threshold is exact, found by sorting.
    """

    def forward(self, scores: Float[Tensor, "b h i j"], mask: Bool[Tensor, "#b #h i j"]) -> Float[Tensor, "b h i j"]:
        precise = scores.to(torch.promote_types(scores.dtype, torch.float32))
        centered = center_scores(precise, mask)
        ordered = centered.sort(dim=-1, descending=True).values
        rank = torch.arange(1, ordered.shape[-1] + 1, device=ordered.device, dtype=ordered.dtype)
        sums = ordered.cumsum(dim=-1) - 1
        support = (rank * ordered > sums).sum(dim=-1, keepdim=True)
        threshold = sums.gather(-1, support - 1) / support
        weights = (centered - threshold).relu().masked_fill(~mask, 0.0)
        return attach_gradient(weights, (weights > 0).to(weights.dtype), precise).to(scores.dtype)
