"""The contract of a score mod: changes attention scores before they become weights."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where


@dataclass(frozen=True, eq=False)
class Scored:
    """One call of attention, as score mods see it before scoring.

    Args:
        x: input of the attention.
        queries: queries, rotated. Rows of cross-attention that share a context are one row.
        keys: keys in their cached form, rotated, persistent ones first.
        where: positions and mask of queries and keys.
        trace: results of earlier layers.
        window: window of the layer; anything cached must be kept as long as the keys are.
        cache: cache of this call. None outside decoding.
        scale: factor on the product of query and key.
    """

    x: Float[Tensor, "b i D"]
    queries: Float[Tensor, "_ h _ d"]
    keys: Float[Tensor, "_ g j _"]
    where: Where
    trace: Trace
    window: int | None
    cache: CallCache | None
    scale: float


class ScoreMod(nn.Module, ABC):
    """Change of the scores, and optionally of the weights. The mask is applied afterwards."""

    backends: ClassVar[frozenset[str]] = frozenset({"explicit"})
    """Backends that this part runs on; "flex" calls it with single scores and without a preparation."""
    records_scores: ClassVar[bool] = False
    """True if the scores after the mods are added to the trace, for the same mod in later layers."""

    signed: bool = False
    """True if weights may become negative."""
    looks_back: ClassVar[bool] = False
    """True if a variant counts over earlier queries, so that no query may see a later key."""
    lowers_scores: ClassVar[bool] = False
    """True if a low score is to hide a key, so that no normalizer may weigh by the size of scores."""
    reads_keys: ClassVar[bool] = False
    """True if a variant compares queries with keys itself, one vector per head."""
    self_attention_only: ClassVar[bool] = False
    """True if a variant cannot serve cross-attention."""

    def prepare(self, call: Scored) -> Any:
        """Compute the argument `p` of the other methods, once per forward; nothing by default."""
        return None

    @abstractmethod
    def forward(self, scores: Float[Tensor, "..."], p: Any = None) -> Float[Tensor, "..."]:
        """Change scaled scores (b h i j), before positions add their bias."""

    def modify_weights(self, weights: Float[Tensor, "b h i j"], p: Any) -> Float[Tensor, "b h i j"]:
        """Change weights after the normalizer; unchanged by default."""
        return weights


ScoreModFactory = Callable[[AttentionShape], ScoreMod]
"""Called with the sizes of the attention layer."""
