"""The contract of a score: the fit of a query to a key."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.core.where import Where


class Score(nn.Module, ABC):
    """Score of every pair of a query and a key."""

    backends: ClassVar[frozenset[str]] = frozenset({"explicit"})
    """Backends that give exactly these scores."""
    negative: ClassVar[bool] = False
    """True if no score is above 0."""
    bilinear: ClassVar[bool] = False
    """True if a linear map of keys can be moved to the queries without changing a score."""

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__()

    def choose_scale(self, usual: float) -> float:
        """Choose the factor on the product of query and key; by default that of the projection, which is given."""
        return usual

    def scale_queries(self, q: Float[Tensor, "b h i d"], where: Where) -> Float[Tensor, "b h i d"]:
        """Scale rotated queries, which the kernels then multiply with the keys; unchanged by default."""
        return q

    @abstractmethod
    def forward(
        self, q: Float[Tensor, "b h i d"], k: Float[Tensor, "b h j d"], scale: float
    ) -> Float[Tensor, "b h i j"]: ...


ScoreFactory = Callable[[AttentionShape], Score]
"""Called with the sizes of the attention layer."""
