from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.drawn_positions import draw_positions
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.where import Where
from lightning_xt.nn.embeddings.base import Embedding, EmbeddingFactory
from lightning_xt.nn.embeddings.sinusoidal_positions import SinusoidalPositions
from lightning_xt.system.option_checks import check_option, check_slots


class RandomizedEmbedding(Embedding):
    """Give another embedding sorted draws from a longer range as positions in training.

    Ruoss et al., 2023. https://arxiv.org/abs/2305.16843
    As RandomizedPositions for attention; with the same num_positions both have the same draws. In evaluation positions
    are 0, 1, 2, ...

    Args:
        embedding: the embedding of positions.
        num_positions: number of positions to draw from, at least the length of the longest sequence in evaluation.
    """

    @check_slots
    def __init__(
        self, shape: LayerShape, *, embedding: EmbeddingFactory = SinusoidalPositions, num_positions: int = 2048
    ) -> None:
        super().__init__()
        check_option("embeddings: RandomizedEmbedding", "num_positions", num_positions, least=1)
        self.inner = embedding(shape)
        known = self.inner.max_length
        if known is not None and known < num_positions:
            raise ValueError(
                f"embeddings: RandomizedEmbedding has num_positions {num_positions}, but {type(self.inner).__name__} "
                f"distinguishes {known}; give it a max_length of as many"
            )
        self.num_positions, self.max_length = num_positions, known

    def check_end(self, end: int) -> None:
        self.inner.check_end(end)

    def forward(
        self, x: Float[Tensor, "b n D"], where: Where, inputs: Inputs, cache: CallCache | None = None
    ) -> Float[Tensor, "b n D"]:
        if self.training and not where.cached:
            where = draw_positions(where, self.num_positions, "embeddings: RandomizedEmbedding")
        added: Tensor = self.inner(x, where, inputs, cache)
        return added
