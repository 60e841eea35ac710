"""Protocols through which decoding knows a model and its cache."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from lightning_xt.core.inputs import Inputs


@runtime_checkable
class DecodingCache(Protocol):
    """Decoding state of a batch of rows; see `core.cache.Cache`."""

    @property
    def bound(self) -> int: ...

    def select(self, rows: Int[Tensor, " b"]) -> None: ...

    def repeat(self, times: int) -> None: ...

    def reorder(self, rows: Int[Tensor, " b"]) -> None: ...

    def truncate(self, length: int | Int[Tensor, " b"]) -> None: ...

    def retire(self, moves: Sequence[tuple[int, int]], rows: int) -> None: ...

    def widen(self, rows: int, reserve: int) -> None: ...

    def overwrite(self, rows: Int[Tensor, " k"], other: Any) -> None: ...

    def set_lengths(self, lengths: Sequence[int]) -> None: ...

    def clear(self, rows: Int[Tensor, " k"]) -> None: ...


@runtime_checkable
class Autoregressive(Protocol):
    """Model that scores the next token and can keep its past in a cache."""

    @property
    def training(self) -> bool: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def max_length(self) -> int | None: ...

    @property
    def recurrences(self) -> Sequence[str]:
        """Names of the parts with a running state, which no window limits, and from which no token can be removed."""
        return ()

    @abstractmethod
    def new_cache(self, batch: int, capacity: int, *, slack: int = 64, window: int | None = None) -> DecodingCache: ...

    def train(self, mode: bool = True) -> object: ...

    @abstractmethod
    def __call__(
        self,
        tokens: Int[Tensor, "b n"],
        *,
        lengths: Int[Tensor, " b"] | None = None,
        inputs: Inputs | None = None,
        cache: DecodingCache | None = None,
        last_only: bool = False,
    ) -> Float[Tensor, "b _ v"]: ...
