"""The contract of a projection: from hidden states to queries, keys and values, and their layout in the cache."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.core.where import Where

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Map from queries, keys and values to gathered values, which knows positions and mask."""


class Projection(nn.Module, ABC):
    """Map from hidden states to queries, keys and values, which also decides their layout in the cache."""

    per_head: ClassVar[bool] = True
    """True if keys and values are one vector per head, so that norms, mods and extra keys can change them."""
    self_attention_only: ClassVar[bool] = False
    """True if a variant cannot serve cross-attention."""
    signed: bool = False
    """True if gathered values are differences of means of values."""
    shares_keys: bool = False
    """True if later layers may read the keys and values of this one."""
    reads_shared_keys: bool = False
    """True if keys and values are those of the layer before that shares them; only queries are projected."""
    rotated_dim: int
    """Number of features of each head that positions rotate."""
    scale: float
    """Factor on the product of query and key."""
    value_shape: tuple[int, int] | None
    """Heads and width of values in their cached form. None = the layer has no values."""

    def project(
        self, x: Float[Tensor, "b n D"]
    ) -> tuple[Float[Tensor, "b h n d"], Float[Tensor, "b g n _"], Float[Tensor, "b g n e"]]:
        """Project tokens to queries, and to keys and values in their cached form.

        Cross-attention, with other vectors for keys, calls `project_queries` and `project_keys_values` instead.
        """
        return self.project_queries(x), *self.project_keys_values(x)

    @abstractmethod
    def project_queries(self, x: Float[Tensor, "b i D"]) -> Float[Tensor, "b h i d"]:
        """Project tokens to queries."""

    @abstractmethod
    def project_keys_values(
        self, source: Float[Tensor, "b j c"]
    ) -> tuple[Float[Tensor, "b g j d"], Float[Tensor, "b g j e"]]:
        """Project vectors to keys and values in their cached form."""

    def shift(
        self, k: Float[Tensor, "b g n _"], v: Float[Tensor, "b g n e"], where: Where, cache: CallCache | None
    ) -> tuple[Float[Tensor, "b g n _"], Float[Tensor, "b g n e"]]:
        """Mix keys and values of neighbouring tokens, before mods, norms and rotations; unchanged by default.

        Args:
            k: keys of the new tokens, or of a context.
            v: their values.
            where: positions; `valid` masks some of the tokens.
            cache: cache of this call. None outside decoding, and for a context.
        """
        return k, v

    def rotate(self, x: Float[Tensor, "b h n d"], turn: Callable[[Tensor], Tensor]) -> Float[Tensor, "b h n _"]:
        """Apply a rotation to the features that are rotated."""
        return turn(x)

    def append_to_cache(
        self, k: Float[Tensor, "b g i d"], v: Float[Tensor, "b g i e"], cache: CallCache, window: int | None
    ) -> tuple[Float[Tensor, "b g j d"], Float[Tensor, "b g j e"]]:
        """Append new keys and values to the cache and return all of them."""
        return cache.append("keys", k, window=window), cache.append("values", v, window=window)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, kernel: Kernel) -> Float[Tensor, "b h i e"]:
        """Run a kernel over keys and values in their cached form."""
        return kernel(q, k, v)


ProjectionFactory = Callable[[AttentionShape], Projection]
"""Called with the sizes of the attention layer."""
