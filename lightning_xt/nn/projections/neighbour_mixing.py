"""Projections that mix keys and values of neighbouring tokens, around another projection."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.core.where import Where
from lightning_xt.nn.projections.base import Kernel, Projection, ProjectionFactory


class NeighbourMixing(Projection, ABC):
    """Projection that changes the keys and values of another one by those of the token before."""

    def __init__(self, shape: AttentionShape, projection: ProjectionFactory) -> None:
        super().__init__()
        self.inner = projection(shape)
        if not self.inner.per_head:
            raise ValueError(
                f"projection: {type(self).__name__} mixes keys and values per head, which {type(self.inner).__name__} "
                "does not have; give it another projection"
            )
        if self.inner.shares_keys or self.inner.reads_shared_keys:
            raise ValueError(
                f"projection: {type(self).__name__} mixes the keys of each layer, but with {type(self.inner).__name__} "
                "the upper layers have none; give it another projection"
            )
        self.signed = self.inner.signed
        self.rotated_dim, self.scale = self.inner.rotated_dim, self.inner.scale
        self.value_shape = self.inner.value_shape

    @abstractmethod
    def mix(
        self, k: Float[Tensor, "b g n d"], v: Float[Tensor, "b g n e"], where: Where, cache: CallCache | None
    ) -> tuple[Float[Tensor, "b g n d"], Float[Tensor, "b g n e"]]:
        """Mix keys and values with those of the token before."""

    def shift(
        self, k: Float[Tensor, "b g n d"], v: Float[Tensor, "b g n e"], where: Where, cache: CallCache | None
    ) -> tuple[Float[Tensor, "b g n d"], Float[Tensor, "b g n e"]]:
        k, v = self.inner.shift(k, v, where, None if cache is None else cache.branch("inner"))
        return self.mix(k, v, where, cache)

    def project(
        self, x: Float[Tensor, "b n D"]
    ) -> tuple[Float[Tensor, "b h n d"], Float[Tensor, "b g n d"], Float[Tensor, "b g n e"]]:
        return self.inner.project(x)

    def project_queries(self, x: Float[Tensor, "b i D"]) -> Float[Tensor, "b h i d"]:
        return self.inner.project_queries(x)

    def project_keys_values(
        self, source: Float[Tensor, "b j c"]
    ) -> tuple[Float[Tensor, "b g j d"], Float[Tensor, "b g j e"]]:
        return self.inner.project_keys_values(source)

    def rotate(self, x: Float[Tensor, "b h n d"], turn: Callable[[Tensor], Tensor]) -> Float[Tensor, "b h n _"]:
        return self.inner.rotate(x, turn)

    def append_to_cache(
        self, k: Float[Tensor, "b g i d"], v: Float[Tensor, "b g i e"], cache: CallCache, window: int | None
    ) -> tuple[Float[Tensor, "b g j d"], Float[Tensor, "b g j e"]]:
        return self.inner.append_to_cache(k, v, cache, window)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, kernel: Kernel) -> Float[Tensor, "b h i e"]:
        return self.inner.attend(q, k, v, kernel)
