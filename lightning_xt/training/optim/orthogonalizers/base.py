"""The contract of an orthogonalizer: many matrices with their singular values brought near 1."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

LEAST_NORM = 1e-7
"""Norm below which a matrix counts as 0."""


class Orthogonalizer(ABC):
    """Map of matrices to the nearest matrices with orthonormal rows, by a fixed number of products."""

    @abstractmethod
    def __call__(self, matrices: Tensor) -> Tensor:
        """Bring all singular values of each matrix near 1, and keep its singular vectors.

        Args:
            matrices: (k, rows, columns). More rows than columns would make the products larger than necessary.

        Returns:
            The same shape and type.
        """


def apply_quintic(x: Tensor, a: float, b: float, c: float) -> Tensor:
    """Map each singular value s of each matrix to a s + b s^3 + c s^5, in three products."""
    gram = torch.bmm(x, x.mT)
    return torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)


def divide_by_norm(matrices: Tensor, more: float = 1.0) -> Tensor:
    """Divide each matrix by its Frobenius norm times a factor, so that no singular value is above its inverse."""
    norms = torch.linalg.vector_norm(matrices, dim=(-2, -1), keepdim=True)
    return matrices / (norms * more).clamp(min=LEAST_NORM)


def choose_product_type(like: Tensor) -> torch.dtype:
    """Choose the type to orthogonalize in: bfloat16 is exact enough, and faster if the device multiplies in it."""
    if like.dtype == torch.float64:
        return torch.float64
    if like.device.type != "cpu" or "AVX512" in torch.backends.cpu.get_cpu_capability():
        return torch.bfloat16
    return torch.float32


OrthogonalizerFactory = Callable[[], Orthogonalizer]
"""Called without arguments."""
