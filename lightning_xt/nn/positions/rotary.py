import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.positions.base import Position
from lightning_xt.nn.rope_scalings.base import RopeScalingFactory
from lightning_xt.system.option_checks import check_option, check_slots


class Rotary(Position):
    """Rotate pairs of features of queries and keys by angles proportional to position (RoPE).

    Su et al., 2021. https://arxiv.org/abs/2104.09864
    Feature d is paired with feature d + rotary_dim / 2, as in Llama checkpoints; the paper pairs neighbours. Angles are
    computed in float32, or in float64 in a float64 model.

    Args:
        rotary_dim: number of features of each head that are rotated, the first ones. None = all.
        base: pair k rotates by base^(-2k / rotary_dim) per token; larger values slow down the slow pairs.
        rope_scaling: change of the frequencies for sequences longer than in training. None = no change.
    """

    @check_slots
    def __init__(
        self,
        shape: AttentionShape,
        *,
        rotary_dim: int | None = None,
        base: float = 10_000.0,
        rope_scaling: RopeScalingFactory | None = None,
    ) -> None:
        super().__init__()
        self.frequencies: Tensor
        rotary_dim = shape.dim_head - shape.dim_head % 2 if rotary_dim is None else rotary_dim
        if rotary_dim < 2 or rotary_dim % 2 or rotary_dim > shape.dim_head:
            raise ValueError(
                f"position: Rotary has rotary_dim {rotary_dim}, which must be even and 2 to dim_head ({shape.dim_head})"
            )
        check_option("position: Rotary", "base", base, above=0)
        self.rotary_dim = rotary_dim
        frequencies = base ** -(torch.arange(0, rotary_dim, 2, dtype=torch.float64, device="cpu") / rotary_dim)
        self.gain = 1.0
        if rope_scaling is not None:
            rescale = rope_scaling()
            frequencies, self.gain = rescale(frequencies, base), rescale.gain
        self.register_constant("frequencies", frequencies.tolist())

    def rotate_queries(self, q: Float[Tensor, "b h i d"], at: Int[Tensor, "#b i"]) -> Float[Tensor, "b h i d"]:
        return self._rotate(q, at)

    def rotate_keys(self, k: Float[Tensor, "b g j d"], at: Int[Tensor, "#b j"]) -> Float[Tensor, "b g j d"]:
        return self._rotate(k, at)

    def _rotate(self, x: Float[Tensor, "b h n d"], at: Int[Tensor, "#b n"]) -> Float[Tensor, "b h n d"]:
        angles = at[:, None, :, None].to(torch.promote_types(x.dtype, torch.float32)) * self.frequencies
        cos, sin = (self.gain * angles.cos()).to(x.dtype), (self.gain * angles.sin()).to(x.dtype)
        half = self.rotary_dim // 2
        left, right, rest = x.split((half, half, x.shape[-1] - self.rotary_dim), dim=-1)
        return torch.cat((left * cos - right * sin, right * cos + left * sin, rest), dim=-1)
