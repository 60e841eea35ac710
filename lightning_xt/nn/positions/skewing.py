"""Biases of all pairs from one number for each distance, without an index for each pair."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lightning_xt.core.where import Where


def sees_back_only(where: Where) -> bool:
    """Return True if no query sees a later key, so that the numbers above the diagonal do not matter."""
    return where.causal and where.visible_prefix is None


def skew(by_distance: Float[Tensor, "b h _ distances"], n: int) -> Float[Tensor, "b h n n"]:
    """Turn numbers by distance into the bias of n queries and n keys.

    With n distances, from the largest to 0, the numbers above the diagonal are arbitrary. With 2 n - 1, the distances
    to later keys follow as negative ones.

        distances 2 1 0 and 3 queries        0 . .
                                             1 0 .
                                             2 1 0

    Args:
        by_distance: numbers for each distance, and for each query or for all.
        n: number of queries and keys.
    """
    # Rows that are one number longer, read in steps of one number less, move by one from row to row.
    padded = F.pad(by_distance, (0, 1)).expand(-1, -1, n, -1)
    step = padded.shape[-1] - 1
    flat = padded.flatten(2)[..., n - 1 : n - 1 + n * step]
    return flat.unflatten(-1, (n, step))[..., :n]
