import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.core.where import Where
from lightning_xt.nn.positions.base import Position
from lightning_xt.system.option_checks import check_option


class ALiBi(Position):
    """Lower each score in proportion to the distance between query and key, head by head at its own fixed rate.

    Press, Smith and Lewis, 2021. https://arxiv.org/abs/2108.12409

    In x-transformers: alibi_pos_bias, alibi_num_heads, rel_pos_kwargs.

    Args:
        biased_heads: number of heads with a bias; the others see no position. None = all, or those with a slope.
        slopes: rate of each biased head, in score per token. None = the geometric sequence of the paper.
    """

    lowers_scores = True

    def __init__(
        self, shape: AttentionShape, *, biased_heads: int | None = None, slopes: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.slopes: Tensor
        if biased_heads is None:
            biased_heads = shape.heads if slopes is None else len(slopes)
        if not 0 < biased_heads <= shape.heads:
            raise ValueError(
                f"position: ALiBi has biased_heads {biased_heads}, which must be 1 to heads ({shape.heads})"
            )
        slopes = compute_slopes(biased_heads) if slopes is None else list(slopes)
        if len(slopes) != biased_heads:
            raise ValueError(
                f"position: ALiBi has {len(slopes)} slopes for {biased_heads} biased_heads; give one for each, or omit "
                "one of the two options"
            )
        for slope in slopes:
            check_option("position: ALiBi", "slope", slope, least=0)
        self.register_constant("slopes", slopes + [0.0] * (shape.heads - biased_heads))

    def bias(self, b: Tensor, h: Tensor, i: Tensor, j: Tensor, p: Where) -> Float[Tensor, "..."]:
        return -self.slopes[h] * (p.queries[b, i] - p.keys[b, j]).abs()


def compute_slopes(heads: int) -> list[float]:
    """Compute a geometric sequence from 2^(-8/heads) to 2^-8.

    Head counts that are not a power of two follow the paper's rule: the sequence of the power below, then every other
    slope of the sequence of the power above.
    """
    below = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * (k + 1) / below) for k in range(below)]
    return slopes + [2 ** (-4 * (k + 1) / below) for k in range(0, 2 * (heads - below), 2)]
