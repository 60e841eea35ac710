from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.norms.base import Norm
from lightning_xt.system.option_checks import check_option

Gain = Literal["fixed", "scalar", "feature"]


class UnitNorm(Norm):
    """Give each vector length 1 times a gain: as qk_norm, scores are cosines times a temperature.

    Henry et al., 2020 (QKNorm). https://arxiv.org/abs/2010.04245
    Attention divides scores by the root of the head's width, so the gain starts where `scale` is what remains. The
    paper starts its learned temperature at log2(n^2 - n) for rows of n tokens.
    In x-transformers: attn_qk_norm, attn_qk_norm_groups, attn_qk_norm_scale, attn_qk_norm_dim_scale.

    Args:
        scale: factor of the cosine of two normed vectors in attention, at the start.
        gain: "fixed"; "scalar", one learned number; or "feature", a learned number per feature.
        groups: number of groups of features of which each gets length 1.
        eps: added to the mean square before the root.
    """

    def __init__(
        self, shape: LayerShape, *, scale: float = 10.0, gain: Gain = "scalar", groups: int = 1, eps: float = 1e-6
    ) -> None:
        super().__init__()
        check_option("norm: UnitNorm", "scale", scale, above=0)
        check_option("norm: UnitNorm", "groups", groups, least=1)
        if gain not in get_args(Gain):
            raise ValueError(f"norm: UnitNorm has gain {gain!r}, which must be one of {', '.join(get_args(Gain))}")
        if shape.dim % groups:
            raise ValueError(f"norm: UnitNorm has groups {groups}, which must divide the width of {shape.dim}")
        self.groups, self.eps = groups, eps
        start = (scale * shape.dim**0.5) ** 0.5
        self.start = start if gain == "fixed" else 1.0
        width = shape.dim if gain == "feature" else 1
        self.gain = None if gain == "fixed" else nn.Parameter(torch.full((width,), start))

    def forward(self, x: Float[Tensor, "... D"], inputs: Inputs) -> Float[Tensor, "... D"]:
        size = x.shape[-1] // self.groups
        unit = F.rms_norm(x.unflatten(-1, (self.groups, size)), (size,), eps=self.eps).flatten(-2) * size**-0.5
        return unit * (self.start if self.gain is None else self.gain.to(x.dtype))
