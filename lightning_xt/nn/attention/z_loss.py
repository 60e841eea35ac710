"""The z-loss of attention: keeps its scores small."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def compute_score_z_loss(
    scores: Float[Tensor, "b h i j"], mask: Bool[Tensor, "#b #h i j"], counted: Bool[Tensor, "#b i"] | None
) -> Float[Tensor, ""]:
    """Compute the mean over queries and heads of the squared logarithm of the sum of exponentiated scores.

    The z-loss of a router of Zoph et al., 2022 (https://arxiv.org/abs/2202.08906), for the softmax of attention.

    Args:
        scores: scores before the softmax.
        mask: True for visible pairs. A query that sees no key does not count.
        counted: True for queries that count. None = all.
    """
    precise = torch.promote_types(scores.dtype, torch.float32)
    counts = mask.any(dim=-1).expand(scores.shape[:3])
    if counted is not None:
        counts = counts & counted[:, None]
    # A finite number, whose gradient is not NaN where a query sees no key.
    hidden = scores.to(precise).masked_fill(~mask, torch.finfo(precise).min / 2)
    sums = hidden.logsumexp(dim=-1).masked_fill(~counts, 0.0)
    return sums.square().sum() / counts.sum().clamp(min=1)
