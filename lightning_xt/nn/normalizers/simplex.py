"""Projections of scores onto the simplex of weights, which give weight exactly 0 to low scores."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lightning_xt.nn.normalizers.base import replace_gradient


def center_scores(scores: Float[Tensor, "b h i j"], mask: Bool[Tensor, "#b #h i j"]) -> Float[Tensor, "b h i j"]:
    """Subtract the largest visible score of each query, without a gradient; hidden and much lower scores become -2.

    A score more than 1 below the largest has weight 0 in sparsemax, and in entmax with alpha 1.5 if scores are halved.
    """
    hidden = scores.detach().masked_fill(~mask, torch.finfo(scores.dtype).min)
    return (hidden - hidden.amax(dim=-1, keepdim=True)).clamp(min=-2.0)


def attach_gradient(
    weights: Float[Tensor, "b h i j"], slopes: Float[Tensor, "b h i j"], scores: Float[Tensor, "b h i j"]
) -> Float[Tensor, "b h i j"]:
    """Return weights with the gradient diag(s) - s s^T / sum(s) of a projection whose slopes are s.

    Peters, Niculae and Martins, 2019, proposition 2. https://arxiv.org/abs/1905.05702
    """
    mean = (slopes * scores).sum(dim=-1, keepdim=True) / slopes.sum(dim=-1, keepdim=True).clamp(min=1e-6)
    return replace_gradient(weights, slopes * (scores - mean))
