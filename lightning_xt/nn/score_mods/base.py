"""The contract of a score mod: changes attention scores before they become weights."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.shapes import AttentionShape


class ScoreMod(nn.Module, ABC):
    """Changes scores, and weights if it says so. The mask is applied after it."""

    backends: ClassVar[frozenset[str]] = frozenset({"explicit"})
    """Ways of computing attention that this part can run on; with "flex" it must work on single scores."""

    @abstractmethod
    def forward(self, scores: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Scores (b h i j), scaled, before positions add their bias."""

    def modify_weights(self, weights: Float[Tensor, "b h i j"]) -> Float[Tensor, "b h i j"]:
        """Weights, after the normalizer. Unchanged by default."""
        return weights


ScoreModFactory = Callable[[AttentionShape], ScoreMod]
