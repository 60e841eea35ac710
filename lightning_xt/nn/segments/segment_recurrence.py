from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.segments.base import Segments


class SegmentRecurrence(Segments):
    """Let the attention of each segment see what the same layer read in the segments before (Transformer-XL).

    Dai et al., 2019. https://arxiv.org/abs/1901.02860
    Keys and values of remembered tokens are computed again from the vectors before the norm, with the weights of now.
    Their positions are relative to the segment's; positions that embeddings add begin again with each segment.
    In x-transformers: max_mem_len, return_mems, mems, mem_masks, detach_mems, XLAutoregressiveWrapper; over a segment's
    end its generation forgets part of the memories.

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
        return reads[:-1]
