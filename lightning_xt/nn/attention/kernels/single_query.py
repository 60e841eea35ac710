"""Attention of one query a row in plain products, as decoding needs it."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def pays_alone(q: Float[Tensor, "b h i d"], dropout: float) -> bool:
    """Whether plain products are faster than torch's flash kernel.

    They are for one query in bfloat16 on a CPU, 1.5 times and, compiled, 5 times: the flash kernel's own products are
    made for many queries.
    """
    return q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[-2] == 1 and dropout == 0


def attend_alone(
    q: Float[Tensor, "b h 1 d"],
    k: Float[Tensor, "b g j d"],
    v: Float[Tensor, "b g j e"],
    mask: Float[Tensor, "#b #h 1 j"] | Bool[Tensor, "#b #h 1 j"] | None,
    scale: float,
) -> Float[Tensor, "b h 1 e"]:
    """Softmax attention; the weights are computed in float32.

    Args:
        q: queries.
        k: keys, of as many heads or of fewer that each serve a group of queries.
        v: values.
        mask: True where a query may look, or a bias. None = everywhere.
        scale: factor on the products.
    """
    b, h, _, d = q.shape
    g, j = k.shape[1:3]
    # The heads that share keys are like as many queries, so that no key or value is copied for each of them.
    scores = scale * (q.reshape(b, g, h // g, d) @ k.mT).float().view(b, h, 1, j)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask.float()
    weights = scores.softmax(dim=-1).to(v.dtype).view(b, g, h // g, j)
    return (weights @ v).reshape(b, h, 1, v.shape[-1])
