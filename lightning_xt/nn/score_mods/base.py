"""The contract of a score mod: changes attention scores before they become weights."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.shapes import AttentionShape


class ScoreMod(nn.Module, ABC):
    """Change of the scores, and optionally of the weights. The mask is applied afterwards."""

    backends: ClassVar[frozenset[str]] = frozenset({"explicit"})
    """Backends that this part runs on; "flex" calls it with single scores."""

    @abstractmethod
    def forward(self, scores: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Change scaled scores (b h i j), before positions add their bias."""

    def modify_weights(self, weights: Float[Tensor, "b h i j"]) -> Float[Tensor, "b h i j"]:
        """Change weights after the normalizer; unchanged by default."""
        return weights


ScoreModFactory = Callable[[AttentionShape], ScoreMod]
"""Called with the sizes of the attention layer."""
