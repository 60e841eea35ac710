"""The contract of an embedding: changes the token vectors before the first layer."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.inputs import Inputs, ReadsInput
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.where import Where


class Embedding(ReadsInput, nn.Module, ABC):
    """Embedding of a token besides its id: of its position or of its type."""

    max_length: int | None = None
    """Number of positions that the embedding distinguishes. None = any number."""

    def check_end(self, end: int) -> None:
        """Raise a ValueError for positions up to `end`, exclusive, that the embedding does not have."""

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "b n D"], where: Where, inputs: Inputs, cache: CallCache | None = None
    ) -> Float[Tensor, "b n D"]:
        """Change the token vectors.

        Args:
            x: vectors of the new tokens.
            where: positions of the tokens.
            inputs: inputs of the forward besides the tokens.
            cache: cache of this embedding. None outside decoding.
        """


EmbeddingFactory = Callable[[LayerShape], Embedding]
"""Called with the sizes of the model."""
