"""Causal attention in blocks of queries: plain products that skip what no query of the block may see."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import has_static_value

LEAST = 64
"""Queries of a block; fewer make products too small to be fast."""
BLOCKS = 8
"""Blocks of a row at most, as each adds to what is compiled."""
LONGEST = 1024
"""Tokens of a row at most, as the weights of all pairs are kept for the backward pass."""


def pays_in_blocks(q: Float[Tensor, "b h n d"]) -> bool:
    """Whether blocks are faster than torch's flash kernel.

    They are for bfloat16 on a CPU, 1.4 to 4 times forward and backward, most for short rows and narrow heads: the flash
    kernel's own products are small, and without AMX they do not make use of bfloat16. Where the flash kernel is turned
    off, as by who counts the products of all pairs, so are they.
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16:
        return False
    # What is compiled for rows of any length cannot know the blocks of each, and would be compiled anew for every one.
    known = has_static_value(q.shape[-2])
    flash = torch.compiler.is_compiling() or torch.backends.cuda.flash_sdp_enabled()
    return known and flash and q.shape[-2] <= LONGEST


def causal_in_blocks(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b g n d"],
    v: Float[Tensor, "b g n e"],
    scale: float,
    dropout: float = 0.0,
) -> Float[Tensor, "b h n e"]:
    """Softmax attention of tokens to themselves and to those before them.

    The weights are computed in float32, from products rounded to the type of the queries.

    Args:
        q: queries.
        k: keys, of as many heads or of fewer that each serve a group of queries.
        v: values.
        scale: factor on the products.
        dropout: share of the weights that is dropped.
    """
    n = q.shape[-2]
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
    at = torch.arange(n, device=q.device)
    size = max(LEAST, -(-n // BLOCKS))
    gathered = []
    for first in range(0, n, size):
        end = min(n, first + size)
        scores = scale * (q[..., first:end, :] @ k[..., :end, :].mT).float()
        later = at[:end] > at[first:end, None]
        weights = scores.masked_fill(later, float("-inf")).softmax(dim=-1).to(v.dtype)
        gathered.append(nn.functional.dropout(weights, dropout) @ v[..., :end, :])
    return torch.cat(gathered, dim=-2)
