import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.core.where import Where
from lightning_xt.nn.positions.base import Position
from lightning_xt.system.option_checks import check_option

HIDDEN = -1e4
"""Bias of a key outside the window: its weight is exactly 0 if another key is inside, in any type of numbers."""


class HardALiBi(Position):
    """Limit each of the first heads to a window; the other heads see everything, without positions.

    Jelassi et al., 2024. https://arxiv.org/abs/2402.01032
    A query without a key in its window, such as in cross-attention, sees all keys.

    Args:
        windows: number of tokens that each of the first heads sees, itself included; attention that looks ahead sees as
            many on the other side. None = 1, 2, 3, ... for half of the heads, as in the paper.
    """

    lowers_scores = True

    def __init__(self, shape: AttentionShape, *, windows: Sequence[int] | None = None) -> None:
        super().__init__()
        windows = list(range(1, shape.heads // 2 + 1)) if windows is None else list(windows)
        if len(windows) > shape.heads:
            raise ValueError(
                f"position: HardALiBi has {len(windows)} windows, but there are only {shape.heads} heads; give at most "
                "one for each head"
            )
        for window in windows:
            check_option("position: HardALiBi", "window", window, least=1)
        self.windows: Tensor
        self.register_constant("windows", [float(w) for w in windows] + [math.inf] * (shape.heads - len(windows)))

    def bias(self, b: Tensor, h: Tensor, i: Tensor, j: Tensor, p: Where) -> Float[Tensor, "..."]:
        return torch.where((p.queries[b, i] - p.keys[b, j]).abs() < self.windows[h], 0.0, HIDDEN)
