import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.positions.base import Position
from lightning_xt.nn.positions.pairs import rotate_pairs
from lightning_xt.nn.rope_scalings.base import RopeScalingFactory
from lightning_xt.system.option_checks import check_option, check_slots


class Rotary(Position):
    """Rotate pairs of features of queries and keys by angles proportional to position (RoPE).

    Su et al., 2021. https://arxiv.org/abs/2104.09864
    Feature d is paired with feature d + rotary_dim / 2, as in Llama checkpoints; the paper pairs neighbours. Angles are
    computed in float32, or in float64 in a float64 model.
    In x-transformers: rotary_pos_emb, rotary_emb_dim, attn_rotate_num_heads, rotary_base_rescale_factor.

    Args:
        rotary_dim: number of features of each head that are rotated, the first ones. None = all.
        base: pair k rotates by base^(-2k / rotary_dim) per token; larger values slow down the slow pairs.
        rope_scaling: change of the frequencies for sequences longer than in training. None = no change.
        rotated_heads: number of query heads that are rotated, the last ones, with the keys they read. None = all.
    """

    @check_slots
    def __init__(
        self,
        shape: AttentionShape,
        *,
        rotary_dim: int | None = None,
        base: float = 10_000.0,
        rope_scaling: RopeScalingFactory | None = None,
        rotated_heads: int | None = None,
    ) -> None:
        super().__init__()
        self.frequencies: Tensor
        rotary_dim = shape.dim_head - shape.dim_head % 2 if rotary_dim is None else rotary_dim
        if rotary_dim < 2 or rotary_dim % 2 or rotary_dim > shape.dim_head:
            raise ValueError(
                f"position: Rotary has rotary_dim {rotary_dim}, which must be even and 2 to dim_head ({shape.dim_head})"
            )
        check_option("position: Rotary", "base", base, above=0)
        group = shape.heads // shape.kv_heads
        rotated_heads = shape.heads if rotated_heads is None else rotated_heads
        if rotated_heads % group or not 0 < rotated_heads <= shape.heads:
            raise ValueError(
                f"position: Rotary has rotated_heads {rotated_heads}, which must be 1 to heads ({shape.heads}), and a "
                f"multiple of the query heads that share a key ({group})"
            )
        self.still_queries = shape.heads - rotated_heads
        self.still_keys = self.still_queries // group
        self.rotates_alike = self.still_queries == 0
        self.rotary_dim = rotary_dim
        frequencies = base ** -(torch.arange(0, rotary_dim, 2, dtype=torch.float64, device="cpu") / rotary_dim)
        self.gain = 1.0
        if rope_scaling is not None:
            rescale = rope_scaling()
            frequencies, self.gain = rescale(frequencies, base), rescale.gain
        self.register_constant("frequencies", frequencies.tolist())

    def rotate_queries(self, q: Float[Tensor, "b h i d"], at: Int[Tensor, "#b i"]) -> Float[Tensor, "b h i d"]:
        return self._rotate_last(q, at, self.still_queries)

    def rotate_keys(self, k: Float[Tensor, "b g j d"], at: Int[Tensor, "#b j"]) -> Float[Tensor, "b g j d"]:
        return self._rotate_last(k, at, self.still_keys)

    def _rotate_last(
        self, x: Float[Tensor, "b h n d"], at: Int[Tensor, "#b n"], still: int
    ) -> Float[Tensor, "b h n d"]:
        """Rotate all heads except the first `still` ones."""
        angles = at[:, None, :, None].to(torch.promote_types(x.dtype, torch.float32)) * self.frequencies
        if still == 0:
            return rotate_pairs(x, angles, self.gain)
        return torch.cat((x[:, :still], rotate_pairs(x[:, still:], angles, self.gain)), dim=1)
