"""Small MLP from a distance to a bias for each head."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.core.adapted_matrix import get_matrix
from lightning_xt.core.autocast import disable_autocast
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.norms.base import NormFactory


class DistanceMLP(nn.Module):
    """MLP with SiLU, in float32 or better: the distance 301 does not exist in bf16.

    With ReLU the offset of a feature would not learn while no distance reaches its kink.

    Args:
        shape: sizes of the attention.
        width: width of the hidden layers.
        depth: number of hidden layers.
        norm: norm before each activation. None = no norm.
    """

    gate_maps = ("to_bias",)

    def __init__(self, shape: AttentionShape, width: int, depth: int, norm: NormFactory | None = None) -> None:
        super().__init__()
        # A line for each feature, with a bend at its own distance.
        self.slope = nn.Parameter(torch.empty(width).uniform_(-1, 1))
        self.offset = nn.Parameter(torch.empty(width).uniform_(-1, 1))
        sizes = replace(shape, dim=width)
        self.norms = nn.ModuleList(nn.Identity() if norm is None else norm(sizes) for _ in range(depth))
        needing = [part for part in self.norms.modules() if getattr(part, "needed_input", None) is not None]
        if needing:
            raise ValueError(
                f"position: the norm {type(needing[0]).__name__} reads Inputs({needing[0].needed_input}=...), but "
                "distances have none; choose another norm"
            )
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        # A constant would change no weight.
        self.to_bias = nn.Linear(width, shape.heads, bias=False)
        self.normed = norm is not None

    def forward(self, distance: Float[Tensor, "..."]) -> Float[Tensor, "... h"]:
        precise = torch.promote_types(self.slope.dtype, torch.float32)
        with disable_autocast(distance):
            x = distance.to(precise)[..., None] * self.slope.to(precise) + self.offset.to(precise)
            for norm, linear in zip(self.norms, [*self.hidden, self.to_bias], strict=True):
                x = F.silu(norm(x, Inputs()).to(precise) if self.normed else x)
                x = F.linear(
                    x, get_matrix(linear).to(precise), None if linear.bias is None else linear.bias.to(precise)
                )
        return x
