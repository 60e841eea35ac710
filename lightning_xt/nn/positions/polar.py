import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.positions.base import Position
from lightning_xt.system.option_checks import check_option


class Polar(Position):
    """Read each feature as the length of a vector whose angle is its position times the feature's frequency (PoPE).

    Gopalakrishnan et al., 2025. https://arxiv.org/abs/2509.10534
    Feature d with the length softplus(x_d) becomes a cosine and a sine, so that a rotated head is twice as wide. A
    learned phase from -2 pi to 0 is added to each angle of the keys, per key head.
    In x-transformers: polar_pos_emb, polar_bias_uniform_init; it crashes with grouped heads.

    Args:
        base: feature d rotates by base^(-d / dim_head) per token.
        phase_init: start of the phases: zero, or uniform between their limits.
    """

    rotates_alike = False

    def __init__(
        self, shape: AttentionShape, *, base: float = 10_000.0, phase_init: Literal["zero", "uniform"] = "zero"
    ) -> None:
        super().__init__()
        check_option("position: Polar", "base", base, above=0)
        self.frequencies: Tensor
        part = torch.arange(shape.dim_head, dtype=torch.float64, device="cpu") / shape.dim_head
        self.register_constant("frequencies", (base**-part).tolist())
        self.phase = nn.Parameter(torch.zeros(shape.kv_heads, 1, shape.dim_head))
        if phase_init == "uniform":
            nn.init.uniform_(self.phase, -2 * math.pi, 0.0)

    def rotate_queries(self, q: Float[Tensor, "b h i d"], at: Int[Tensor, "#b i"]) -> Float[Tensor, "b h i _"]:
        return self._rotate(q, at, 0.0)

    def rotate_keys(self, k: Float[Tensor, "b g j d"], at: Int[Tensor, "#b j"]) -> Float[Tensor, "b g j _"]:
        precise = torch.promote_types(k.dtype, torch.float32)
        return self._rotate(k, at, self.phase.to(precise).clamp(-2 * math.pi, 0.0))

    def _rotate(self, x: Tensor, at: Tensor, phase: Tensor | float) -> Tensor:
        precise = torch.promote_types(x.dtype, torch.float32)
        angles = at[:, None, :, None].to(precise) * self.frequencies + phase
        length = F.softplus(x.to(precise))
        return torch.cat((length * angles.cos(), length * angles.sin()), dim=-1).to(x.dtype)
