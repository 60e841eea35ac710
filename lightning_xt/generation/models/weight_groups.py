"""Groups of weights: adjacent numbers of a row of a matrix with one scale."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

GroupSize = int | Literal["row"]
"""Numbers of a group, or the whole row (one scale per output channel)."""


def resolve_group(size: GroupSize, width: int) -> int:
    """Return the numbers of a group in rows of a width: at most the row."""
    return width if size == "row" else min(size, width)


def split_groups(matrix: Float[Tensor, "o i"], group: int) -> Float[Tensor, "o g w"]:
    """Split each row into groups. The last group repeats the row's last number until it is full; its range stays."""
    rest = -matrix.shape[1] % group
    padded = functional.pad(matrix[None], (0, rest), mode="replicate")[0] if rest else matrix
    return padded.unflatten(1, (-1, group))
