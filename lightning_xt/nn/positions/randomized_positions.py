from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.drawn_positions import draw_positions
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.nn.positions.base import Position, PositionFactory
from lightning_xt.nn.positions.rotary import Rotary
from lightning_xt.system.option_checks import check_option, check_slots


class RandomizedPositions(Position):
    """Give another position sorted draws from a longer range in training, so that it knows longer sequences.

    Ruoss et al., 2023. https://arxiv.org/abs/2305.16843
    All layers and rows of a training step have the same draws. In evaluation positions are 0, 1, 2, ...

    Args:
        position: the position that reads them.
        num_positions: number of positions to draw from, at least the length of the longest sequence in evaluation.
    """

    @check_slots
    def __init__(self, shape: AttentionShape, *, position: PositionFactory = Rotary, num_positions: int = 2048) -> None:
        super().__init__()
        check_option("position: RandomizedPositions", "num_positions", num_positions, least=1)
        self.num_positions = num_positions
        self.inner = inner = position(shape)
        self.backends, self.biased, self.paired = inner.backends, inner.biased, inner.paired
        self.looks_back, self.per_row, self.rotates_alike = inner.looks_back, inner.per_row, inner.rotates_alike
        self.lowers_scores, self.shared = inner.lowers_scores, inner.shared

    def place(self, where: Where) -> Where:
        where = self.inner.place(where)
        if not self.training or where.cached:
            return where
        return draw_positions(where, self.num_positions, "position: RandomizedPositions")

    def share(self, trace: Trace) -> Trace:
        return self.inner.share(trace)

    def rotate_queries(self, q: Float[Tensor, "b h i d"], at: Int[Tensor, "#b i"]) -> Float[Tensor, "b h i _"]:
        return self.inner.rotate_queries(q, at)

    def rotate_keys(self, k: Float[Tensor, "b g j d"], at: Int[Tensor, "#b j"]) -> Float[Tensor, "b g j _"]:
        return self.inner.rotate_keys(k, at)

    def prepare(
        self, x: Float[Tensor, "b i D"], where: Where, window: int | None, cache: CallCache | None, trace: Trace
    ) -> Any:
        return self.inner.prepare(x, where, window, cache, trace)

    def pad(self, p: Any, queries: int, keys: int) -> Any:
        return self.inner.pad(p, queries, keys)

    def dense(self, p: Any) -> Float[Tensor, "_ h i j"] | None:
        return self.inner.dense(p)

    def bias(self, b: Tensor, h: Tensor, i: Tensor, j: Tensor, p: Any) -> Float[Tensor, "..."]:
        return self.inner.bias(b, h, i, j, p)

    def pairwise(
        self,
        scores: Float[Tensor, "b h i j"],
        q: Float[Tensor, "b h i d"],
        k: Float[Tensor, "b h j d"],
        where: Where,
        p: Any,
        scale: float,
    ) -> Float[Tensor, "b h i j"]:
        return self.inner.pairwise(scores, q, k, where, p, scale)
