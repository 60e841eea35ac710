"""Numbers of keys that queries see."""

import torch
from jaxtyping import Int
from torch import Tensor

from lightning_xt.core.where import Where


def count_visible(where: Where) -> Int[Tensor, "#b i"]:
    """Count the keys that each query sees, without a dense mask if positions alone decide."""
    if where.unmasked or where.plain_full:
        return torch.full_like(where.queries, where.memory + where.keys.shape[-1])
    extras = (where.valid, where.visible_prefix, where.valid_memory, where.own_mask, where.order)
    if not where.causal or any(extra is not None for extra in extras):
        return where.dense()[:, 0].sum(dim=-1)
    seen = where.queries + 1
    return where.memory + (seen if where.window is None else seen.clamp(max=where.window))
