"""Matrices of linear maps, for parts that do not call the map."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn


class AdaptedMatrix(ABC):
    """Linear map whose matrix is its parameter `weight` with a change."""

    @property
    @abstractmethod
    def merged_weight(self) -> Float[Tensor, "out in"]:
        """The matrix with the change."""


def get_matrix(linear: nn.Module) -> Float[Tensor, "out in"]:
    """Return the matrix that a linear map multiplies by, with the change of its adapter if it has one.

    Parts that do not call the map, but multiply by its matrix, must read it here. A map must not have the merged matrix
    as its attribute `weight`: sharding takes what has a parameter's name for the parameter.
    """
    matrix: Tensor = linear.merged_weight if isinstance(linear, AdaptedMatrix) else linear.weight  # type: ignore[assignment]
    return matrix
