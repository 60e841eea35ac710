"""Orthogonalization of many matrices at once."""

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic: small singular values grow fastest, the others stay between about 0.7 and 1.2."""
LEAST_NORM = 1e-7


def orthogonalize(matrices: Tensor, steps: int) -> Tensor:
    """Bring all singular values of each matrix near 1, and keep its singular vectors.

    Newton-Schulz iterations of a quintic, in three products each. Jordan et al., 2024.
    https://kellerjordan.github.io/posts/muon/

    Args:
        matrices: (k, rows, columns). More rows than columns would make the products larger than necessary.
        steps: iterations; 5 are usual.

    Returns:
        The same shape and type.
    """
    a, b, c = COEFFICIENTS
    # The iteration converges from singular values of at most 1.
    x = matrices / torch.linalg.vector_norm(matrices, dim=(-2, -1), keepdim=True).clamp(min=LEAST_NORM)
    for _ in range(steps):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def choose_product_type(like: Tensor) -> torch.dtype:
    """Choose the type to orthogonalize in: bfloat16 is exact enough, and faster if the device multiplies in it."""
    if like.dtype == torch.float64:
        return torch.float64
    if like.device.type != "cpu" or "AVX512" in torch.backends.cpu.get_cpu_capability():
        return torch.bfloat16
    return torch.float32
