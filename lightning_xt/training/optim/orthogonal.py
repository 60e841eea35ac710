"""Matrices to the orthogonal ones next to them, many at a time."""

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic: they grow small singular values fastest, and leave the others between about 0.7 and 1.2."""
LEAST_NORM = 1e-7


def orthogonalize(matrices: Tensor, steps: int) -> Tensor:
    """Brings all singular values of each matrix near 1, and keeps its singular vectors.

    Newton-Schulz iterations of a quintic, in three products each. Jordan et al., 2024.
    https://kellerjordan.github.io/posts/muon/

    Args:
        matrices: (k, rows, columns), at most as many rows as columns, else the products are larger than they need be.
        steps: iterations; 5 are usual.

    Returns:
        The same shape and type.
    """
    a, b, c = COEFFICIENTS
    # Singular values of at most 1, from where the iteration converges.
    x = matrices / torch.linalg.vector_norm(matrices, dim=(-2, -1), keepdim=True).clamp(min=LEAST_NORM)
    for _ in range(steps):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def choose_product_type(like: Tensor) -> torch.dtype:
    """The type to orthogonalize in: bfloat16 is exact enough and faster where the device multiplies in it."""
    if like.dtype == torch.float64:
        return torch.float64
    if like.device.type != "cpu" or "AVX512" in torch.backends.cpu.get_cpu_capability():
        return torch.bfloat16
    return torch.float32
