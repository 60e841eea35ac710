from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.segments.base import Segments


class EnhancedRecurrence(Segments):
    """Let the attention of each segment see the output of the same layer in the segments before (ERNIE-Doc).

    Ding et al., 2020. https://arxiv.org/abs/2012.15688
    A token may depend on older ones with every segment, not only with every layer. Keys and values are computed from
    the vectors that the next attention read, those of the last layer from the output of the stack, before their norm.
    In x-transformers: shift_mem_down; there the lowest layer's vectors go to the last layer.

    Args:
        length: most tokens of a segment; longer rows are read in several.
        memory: number of remembered tokens. None = length.
        dropout: fraction of the remembered tokens that a segment does not see in training.
    """

    def __init__(
        self, shape: LayerShape, *, length: int = 256, memory: int | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__(length, length if memory is None else memory, dropout)

    def choose_vectors(self, reads: tuple[Float[Tensor, "b n D"], ...]) -> tuple[Float[Tensor, "b n D"], ...]:
        return reads[1:]
