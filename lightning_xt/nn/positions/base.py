"""The contract of a position: how attention learns where tokens stand."""

from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.core.where import Where


class Position(nn.Module, ABC):
    """Turns queries and keys before they meet, or adds a bias to their scores, or both. Does nothing by default."""

    _constants: Mapping[str, tuple[float, ...]] = MappingProxyType({})
    backends: ClassVar[frozenset[str]] = frozenset({"fused", "flex", "explicit"})
    """Ways of computing attention that this part can run on."""
    biased: ClassVar[bool] = False
    """Whether a variant has a `bias`. Derived."""
    paired: ClassVar[bool] = False
    """Whether a variant has a `pairwise`. Derived."""
    per_row: ClassVar[bool] = False
    """Whether the bias differs between rows that share positions and mask, because it reads the tokens."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.biased = cls.bias is not Position.bias
        cls.paired = cls.pairwise is not Position.pairwise

    def register_constant(self, name: str, values: Sequence[float]) -> None:
        """Registers a buffer that stays float32 when the model is cast: in bf16 position 1000 would be 1003's equal.

        Args:
            name: of the buffer.
            values: its numbers.
        """
        self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)
        self._constants = {**self._constants, name: tuple(values)}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Position":
        super()._apply(fn, recurse)
        for name, values in self._constants.items():
            setattr(self, name, torch.tensor(values, dtype=torch.float32, device=getattr(self, name).device))
        return self

    def rotate_queries(self, q: Float[Tensor, "b h i d"], at: Int[Tensor, "#b i"]) -> Float[Tensor, "b h i r"]:
        """Turns queries by where they stand."""
        return q

    def rotate_keys(self, k: Float[Tensor, "b g j d"], at: Int[Tensor, "#b j"]) -> Float[Tensor, "b g j r"]:
        """Turns keys by where they stand, before they are remembered."""
        return k

    def prepare(self, x: Float[Tensor, "b i D"], where: Where, window: int | None, cache: CallCache | None) -> Any:
        """What `bias` is given as `p`: computed once per forward from the new tokens and what the cache kept.

        Args:
            x: the vectors attention was given.
            where: positions of queries and of all keys.
            window: how far back the layer looks; whatever is remembered must be kept as long as the keys are.
            cache: memory of this call. None outside decoding.
        """
        return where.expand(where.rows)

    def pad(self, p: Any, queries: int, keys: int) -> Any:
        """Append to what `prepare` returned for queries and keys whose results are discarded; block kernels need it.

        Args:
            p: as `prepare` returned it.
            queries: number of queries to append.
            keys: number of keys to append; no query sees them.
        """
        return p.pad(queries, keys)

    def bias(self, b: Tensor, h: Tensor, i: Tensor, j: Tensor, p: Any) -> Float[Tensor, "..."]:
        """What is added to the score of the query with index i and the key with index j, in row b and head h.

        Written elementwise: with indices that broadcast it is the dense bias, with scalars flex's score_mod.
        """
        raise TypeError(f"{type(self).__name__} has no bias")

    def pairwise(
        self, scores: Float[Tensor, "b h i j"], q: Float[Tensor, "b h i d"], where: Where
    ) -> Float[Tensor, "b h i j"]:
        """What is added to the scores where it depends on them, which only the explicit backend can give.

        Args:
            scores: scaled, after the score mods.
            q: queries, turned.
            where: positions and mask, without persistent keys.
        """
        raise TypeError(f"{type(self).__name__} has no pairwise term")


PositionFactory = Callable[[AttentionShape], Position]
