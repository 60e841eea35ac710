"""Causal attention in blocks of queries: plain products that skip the keys after each block."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

LEAST = 64
"""Smallest number of queries in a block; smaller products are slow."""
BLOCKS = 8
"""Most blocks of a row; each adds to a compiled program."""
LONGEST = 1024
"""Most tokens of a row; the weights of all pairs are kept for the backward pass."""


def blocks_are_faster(q: Float[Tensor, "b h n d"]) -> bool:
    """Return True if blocks are faster than torch's flash kernel.

    In bfloat16 on a CPU they are 1.4 to 4 times faster forward and backward, most for short rows and narrow heads: the
    flash kernel's own products are small, and without AMX they do not use bfloat16. A caller that turns the flash
    kernel off, such as to count the products of all pairs, turns blocks off too.
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16:
        return False
    if not torch.compiler.is_compiling():
        return torch.backends.cuda.flash_sdp_enabled() and q.shape[-2] <= LONGEST
    # Here, for it takes long to import.
    from torch.fx.experimental.symbolic_shapes import has_static_value

    # A program for rows of any length cannot hold the blocks of each; blocks would compile one program per length.
    return has_static_value(q.shape[-2]) and q.shape[-2] <= LONGEST


def attend_causal_blocks(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b g n d"],
    v: Float[Tensor, "b g n e"],
    scale: float,
    dropout: float = 0.0,
) -> Float[Tensor, "b h n e"]:
    """Compute softmax attention of tokens to themselves and to earlier tokens.

    The products are rounded to the type of the queries, then multiplied by `scale`; the weights are computed in
    float32, and the fraction `dropout` of them is dropped. A key head serves one or several query heads.
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
