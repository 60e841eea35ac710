"""Attention of one query a row in plain products, for decoding."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def single_query_is_faster(q: Float[Tensor, "b h i d"], dropout: float) -> bool:
    """Return True if plain products are faster than torch's flash kernel.

    For one query in bfloat16 on a CPU they are twice as fast and, compiled, 4 times: the flash kernel's products are
    made for many queries.
    """
    return q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[-2] == 1 and dropout == 0


def attend_single_query(
    q: Float[Tensor, "b h 1 d"],
    k: Float[Tensor, "b g j d"],
    v: Float[Tensor, "b g j e"],
    mask: Float[Tensor, "#b #h 1 j"] | Bool[Tensor, "#b #h 1 j"] | None,
    scale: float,
    sinks: Float[Tensor, " h"] | None = None,
) -> Float[Tensor, "b h 1 e"]:
    """Compute softmax attention of one query a row, the weights in float32 or better, from products times `scale`.

    A key head serves one or several query heads. The mask is True for visible keys, or a bias. None = all visible. A
    query that sees no key gathers 0. The sinks are the scores, per head, of one more key, whose value is 0.
    """
    b, h, _, d = q.shape
    g, j = k.shape[1:3]
    # Heads that share keys become queries of one head, so that no key or value is copied.
    precise, dtype = torch.promote_types(q.dtype, torch.float32), v.dtype
    if q.device.type == "cpu" and not torch.compiler.is_compiling():
        # Torch prepares bfloat16 products for each new number of keys, which takes longer than these in float32.
        q, k, v = q.to(precise), k.to(precise), v.to(precise)
    scores = scale * (q.reshape(b, g, h // g, d) @ k.mT).to(precise).view(b, h, 1, j)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask.to(precise)
    if sinks is not None:
        more = sinks.to(precise).view(1, h, 1, 1).expand(b, -1, -1, -1)
        weights = torch.cat((more, scores), dim=-1).softmax(dim=-1)[..., 1:]
    elif mask is None:
        weights = scores.softmax(dim=-1)
    else:
        blind = scores.amax(dim=-1, keepdim=True) == float("-inf")
        # Before the softmax too, whose gradient would be NaN.
        weights = scores.masked_fill(blind, 0.0).softmax(dim=-1).masked_fill(blind, 0.0)
    return (weights.to(v.dtype).view(b, g, h // g, j) @ v).reshape(b, h, 1, v.shape[-1]).to(dtype)
