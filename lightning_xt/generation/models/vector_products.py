"""Products of a matrix with one vector, which a compiled step computes row by row."""

import torch
from torch import Tensor


def is_one_vector(x: Tensor) -> bool:
    """Return whether a compiled step on a CPU multiplies one vector."""
    return torch.compiler.is_compiling() and x.device.type == "cpu" and x.numel() == x.shape[-1]


def multiply_by_rows(matrix: Tensor, x: Tensor) -> Tensor:
    """Return the product of a matrix and a vector (*1 i), in at least float32; to be compiled."""
    return (matrix.to(wide_type(x)) * widen(x)).sum(dim=-1).view(*x.shape[:-1], -1)


def widen(x: Tensor) -> Tensor:
    """Return a vector in at least float32; to be compiled."""
    vector = x.flatten().to(wide_type(x))
    # Otherwise the compiler recomputes the vector for each row, including a GELU before it.
    return vector.as_strided(vector.shape, vector.stride())


def wide_type(x: Tensor) -> torch.dtype:
    """Return the type in which products of a vector are summed."""
    return torch.promote_types(x.dtype, torch.float32)
