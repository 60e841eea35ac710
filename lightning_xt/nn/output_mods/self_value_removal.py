import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.output_mods.base import OutputMod
from lightning_xt.nn.output_mods.own_values import project_on_own


class SelfValueRemoval(OutputMod):
    """Remove a learned fraction of what a head gathered along the value of the token itself.

    Zhai, 2026 (exclusive self-attention). https://arxiv.org/abs/2603.09078
    The paper removes all. The fraction per head, the tanh of a learned number, 0 at the start, is of public speedruns:
    https://github.com/KellerJordan/modded-nanogpt. With a value residual, the mixed value is meant.
    """

    reads_values = True
    removes_own = True

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__()
        self.fraction = nn.Parameter(torch.zeros(shape.heads, 1, 1))

    def forward(
        self, out: Float[Tensor, "b h i e"], x: Float[Tensor, "b i D"], own: Float[Tensor, "b g i e"] | None
    ) -> Float[Tensor, "b h i e"]:
        return out if own is None else (out - self.fraction.tanh() * project_on_own(out, own)).to(out.dtype)
