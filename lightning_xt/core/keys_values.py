"""Keys and values that a caller brings to a forward."""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class KeysValues:
    """Keys and values of another model for one layer, in their cached form: normed and rotated.

    Args:
        keys: one vector for each key/value head.
        values: the values of the keys.
        mask: True for real ones. None = all.
    """

    keys: Float[Tensor, "b g m d"]
    values: Float[Tensor, "b g m e"]
    mask: Bool[Tensor, "b m"] | None = None
