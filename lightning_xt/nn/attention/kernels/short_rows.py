"""Attention of short rows in plain products of all pairs, for training."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

LONGEST = 128
"""Most keys of a row."""


def short_rows_are_faster(q: Float[Tensor, "b h i d"], k: Float[Tensor, "b g j d"]) -> bool:
    """Return True if plain products are faster than torch's flash kernel.

    In bfloat16 on a CPU that kernel's backward pass takes as long for 30 keys as for 128. Forward and backward, plain
    products are 6 times faster with 30 keys, 5 times with 60, and 1.6 times with 128 (heads of 32, one thread). A
    caller that turns the flash kernel off, such as to count the products of all pairs, turns them off too.
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or not (torch.is_grad_enabled() and q.requires_grad):
        return False
    flash = torch.compiler.is_compiling() or torch.backends.cuda.flash_sdp_enabled()
    return bool(flash and k.shape[-2] <= LONGEST)


def attend_short_rows(
    q: Float[Tensor, "b h i d"],
    k: Float[Tensor, "b g j d"],
    v: Float[Tensor, "b g j e"],
    mask: Float[Tensor, "#b #h #i j"] | Bool[Tensor, "#b #h #i j"] | None,
    scale: float,
    dropout: float = 0.0,
) -> Float[Tensor, "b h i e"]:
    """Compute softmax attention, the weights in float32, from products times `scale`.

    The fraction `dropout` of the weights is dropped. A key head serves one or several query heads. The mask is True for
    visible keys, or a bias. None = all visible. A query that sees no key gathers 0.
    """
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
    scores, blind = scale * (q @ k.mT).float(), None
    if mask is not None:
        # The masks are smaller than the scores. A query that saw nothing would make the gradient NaN.
        hidden = ~mask if mask.dtype == torch.bool else mask == float("-inf")
        blind = hidden.all(dim=-1, keepdim=True)
        scores = scores if mask.dtype == torch.bool else scores + mask.masked_fill(hidden, 0.0)
        scores = scores.masked_fill(hidden & ~blind, float("-inf"))
    out = nn.functional.dropout(scores.softmax(dim=-1).to(v.dtype), dropout) @ v
    return out if blind is None else out.masked_fill(blind, 0.0)
