"""The contract of a projection: how queries, keys and values are made from hidden states, and what is remembered."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.shapes import AttentionShape

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries, keys and values to gathered values: score, weigh and gather, with positions and mask already inside."""


class Projection(nn.Module, ABC):
    """Makes queries, keys and values; owns the layout of what decoding remembers of them."""

    per_head: ClassVar[bool] = True
    """Whether keys and values leave as one vector per head, so that norms, mods and extra keys can touch them."""
    rotated_dim: int
    """Features of each head that positions turn."""
    scale: float
    """Factor on the product of query and key."""

    def project(
        self, x: Float[Tensor, "b n D"]
    ) -> tuple[Float[Tensor, "b h n d"], Float[Tensor, "b g n _"], Float[Tensor, "b g n e"]]:
        """Queries, keys and values of the same tokens, the latter two as they are remembered, in one product or more.

        Cross-attention, with other vectors for keys, calls `project_queries` and `project_keys_values` instead.
        """
        return self.project_queries(x), *self.project_keys_values(x)

    @abstractmethod
    def project_queries(self, x: Float[Tensor, "b i D"]) -> Float[Tensor, "b h i d"]: ...

    @abstractmethod
    def project_keys_values(
        self, source: Float[Tensor, "b j c"]
    ) -> tuple[Float[Tensor, "b g j d"], Float[Tensor, "b g j e"]]:
        """Keys and values of new tokens, in the form in which they are remembered."""

    def rotate(self, x: Float[Tensor, "b h n d"], turn: Callable[[Tensor], Tensor]) -> Float[Tensor, "b h n d"]:
        """Applies positions to the features that take them."""
        return turn(x)

    def remember(
        self, k: Float[Tensor, "b g i d"], v: Float[Tensor, "b g i e"], cache: CallCache, window: int | None
    ) -> tuple[Float[Tensor, "b g j d"], Float[Tensor, "b g j e"]]:
        """Adds new keys and values to the memory and returns all of them."""
        return cache.append("keys", k, window=window), cache.append("values", v, window=window)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, kernel: Kernel) -> Float[Tensor, "b h i e"]:
        """Runs attention over what is remembered."""
        return kernel(q, k, v)


ProjectionFactory = Callable[[AttentionShape], Projection]
