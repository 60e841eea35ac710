"""Additions to values through a gate per head."""

from jaxtyping import Float
from torch import Tensor


def add_gated(
    v: Float[Tensor, "b g n e"],
    added: Float[Tensor, "b n _"],
    x: Float[Tensor, "b n c"],
    to_gate: Float[Tensor, "features g"],
) -> Float[Tensor, "b g n e"]:
    """Add vectors of all heads, side by side, to values, times 2 sigmoid(w x) of the tokens' first features."""
    gate = 2 * (x[..., : len(to_gate)] @ to_gate.to(x.dtype)).sigmoid()
    return v + gate.mT.unsqueeze(-1) * added.unflatten(-1, (v.shape[1], -1)).transpose(1, 2).to(v.dtype)
