"""Keys that take weight and gather nothing, for scaled_dot_product_attention."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lightning_xt.nn.attention.kernels.scoring import Scoring


def prepend_sink(
    q: Float[Tensor, "b h i d"],
    k: Float[Tensor, "b g j d"],
    v: Float[Tensor, "b g j e"],
    sinks: Float[Tensor, " h"],
    scoring: Scoring,
) -> tuple[Tensor, Tensor, Tensor, Scoring]:
    """Prepend a persistent key whose score in each head is given, and whose value is zero.

    The score is a further feature of the queries, which only this key has too. Values get one more as well, for the
    flash kernel takes one width only.
    """
    scores = (sinks / scoring.scale).to(q.dtype).view(1, -1, 1, 1).expand(*q.shape[:-1], 1)
    k, v = (F.pad(each, (0, 1, 1, 0)) for each in (k, v))
    k[..., 0, -1] = 1.0
    return torch.cat((q, scores), dim=-1), k, v, replace(scoring, where=scoring.where.add_memory(1))
