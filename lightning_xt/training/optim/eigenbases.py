"""Eigenbases of covariances that change slowly."""

import math

import torch
from torch import Tensor


def find_eigenbases(covariances: Tensor) -> Tensor:
    """Find the eigenvectors of symmetric matrices, (k, n, n), as columns, those of the largest eigenvalues first."""
    values, vectors = torch.linalg.eigh(covariances)
    return _orthonormalize((vectors * values[:, None]).flip(-1))


def improve_eigenbases(covariances: Tensor, bases: Tensor) -> tuple[Tensor, Tensor]:
    """Bring orthonormal columns nearer to the eigenvectors of symmetric matrices, by one step of orthogonal iteration.

    Args:
        covariances: (k, n, n).
        bases: (k, n, n), columns near the eigenvectors.

    Returns:
        The new columns, those of the largest estimated eigenvalues first, and (k, n), the old column of each.
    """
    products = covariances @ bases
    order = (bases * products).sum(dim=-2).sort(dim=-1, descending=True, stable=True).indices
    return _orthonormalize(products.gather(-1, order[:, None].expand_as(products))), order


def _orthonormalize(columns: Tensor) -> Tensor:
    """Return Q of the QR decompositions of products, (k, n, n), of matrices with their approximate eigenvectors.

    Matrices of low rank leave rounding errors in the last columns. Those are not reflected, so that the others alone
    decide about them, and runs that differ by rounding errors, such as on one and on two processes, stay together.
    """
    reflectors, scales = torch.geqrf(columns)
    sizes = reflectors.diagonal(dim1=-2, dim2=-1).abs()
    least = 2 * math.sqrt(columns.shape[-1]) * torch.finfo(columns.dtype).eps * sizes.amax(dim=-1, keepdim=True)
    noise = (sizes <= least).cumsum(dim=-1) > 0
    return torch.linalg.householder_product(reflectors, scales.masked_fill(noise, 0))
