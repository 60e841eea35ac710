"""The contract of a position: the information of attention about the positions of tokens."""

from abc import ABC
from collections.abc import Callable
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.float32_constants import KeepsConstants
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where


class Position(KeepsConstants, ABC):
    """Rotation of queries and keys, a bias of their scores, or both; nothing by default."""

    # Of the class, or of an object whose parts decide.
    backends: frozenset[str] = frozenset({"fused", "flex", "explicit"})
    """Backends that this part runs on."""
    biased: bool = False
    """True if it has a `bias`. Derived."""
    paired: bool = False
    """True if it has a `pairwise`. Derived."""
    looks_back: bool = False
    """True if it counts from a query back to its keys, so that no query may see a later key."""
    lowers_scores: bool = False
    """True if a low score is to hide a key, so that no normalizer may weigh by the size of scores."""
    per_row: bool = False
    """True if the bias differs between rows with the same positions and mask, because it depends on the tokens."""
    shared: tuple[tuple[str, str], ...] = ()
    """Parts whose results serve later layers, and options that all layers with such a part must have alike."""
    rotates_alike: bool = True
    """True if rotations are the same for all heads and keep their width, so that heads may share a rotated key."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.biased = cls.bias is not Position.bias
        cls.paired = cls.pairwise is not Position.pairwise

    def rotate_queries(self, q: Float[Tensor, "b h i d"], at: Int[Tensor, "#b i"]) -> Float[Tensor, "b h i _"]:
        """Rotate queries by their positions."""
        return q

    def rotate_keys(self, k: Float[Tensor, "b g j d"], at: Int[Tensor, "#b j"]) -> Float[Tensor, "b g j _"]:
        """Rotate keys by their positions, before they are cached."""
        return k

    def place(self, where: Where) -> Where:
        """Return other positions for rotations and biases; the given ones by default. The mask stays."""
        return where

    def share(self, trace: Trace) -> Trace:
        """Leave what the same position of later layers reads in the trace; nothing by default."""
        return trace

    def prepare(
        self, x: Float[Tensor, "b i D"], where: Where, window: int | None, cache: CallCache | None, trace: Trace
    ) -> Any:
        """Compute the argument `p` of `bias` once per forward, from the new tokens and the cache.

        Args:
            x: input of the attention.
            where: positions of queries and of all keys.
            window: window of the layer; anything cached must be kept as long as the keys are.
            cache: cache of this call. None outside decoding.
            trace: results of earlier layers.
        """
        return where.expand(where.rows)

    def pad(self, p: Any, queries: int, keys: int) -> Any:
        """Append to what `prepare` returned for queries and keys whose results are discarded; block kernels need it.

        No query sees the appended keys.
        """
        return p.pad(queries, keys)

    def bias(self, b: Tensor, h: Tensor, i: Tensor, j: Tensor, p: Any) -> Float[Tensor, "..."]:
        """Compute the bias of the query with index i and the key with index j, in row b and head h.

        Written elementwise: broadcast indices give the dense bias, scalars make it flex's score_mod.
        """
        raise TypeError(f"{type(self).__name__} has no bias")

    def dense(self, p: Any) -> Float[Tensor, "_ h i j"] | None:
        """Compute the bias of all pairs in a faster way than `bias` with broadcast indices. None = there is none.

        The bias of pairs that the mask hides is arbitrary.
        """
        return None

    def pairwise(
        self,
        scores: Float[Tensor, "b h i j"],
        q: Float[Tensor, "b h i d"],
        k: Float[Tensor, "b h j d"],
        where: Where,
        p: Any,
        scale: float,
    ) -> Float[Tensor, "b h i j"]:
        """Compute a bias that depends on the scores, on the explicit backend only.

        Args:
            scores: scaled scores after the score mods.
            q: rotated queries.
            k: rotated keys, one for each query head.
            where: positions and mask, without persistent keys.
            p: result of `prepare`.
            scale: factor on the product of query and key.
        """
        raise TypeError(f"{type(self).__name__} has no pairwise term")


PositionFactory = Callable[[AttentionShape], Position]
"""Called with the sizes of the attention layer."""
