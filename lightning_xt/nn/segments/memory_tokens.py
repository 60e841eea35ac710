from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.memories import Memories
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.segments.base import Segments


class MemoryTokens(Segments):
    """Put memory tokens after each segment, whose output stands before the next segment and after it again (RMT).

    Bulatov et al., 2022. https://arxiv.org/abs/2207.06881
    The tokens after a segment see all of it; the hidden states from which the head would make logits are the memories.
    After the first segment they are learned vectors. Nothing stands before the first segment, so that a document reads
    alike wherever it begins. Positions of attention count the memory tokens, those of embeddings do not.
    In x-transformers: num_memory_tokens; forgotten after each forward there.

    Args:
        length: most tokens of a segment; longer rows are read in several.
        memory: number of memory tokens. None = 8.
        dropout: fraction of the memory tokens that a segment does not see in training.
    """

    adds_tokens: ClassVar = True

    def __init__(
        self, shape: LayerShape, *, length: int = 256, memory: int | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__(length, 8 if memory is None else memory, dropout)
        self.initial = nn.Parameter(torch.randn(self.memory, shape.dim))

    def choose_vectors(self, reads: tuple[Float[Tensor, "b n D"], ...]) -> tuple[Float[Tensor, "b n D"], ...]:
        return reads

    def get_tokens(self, memories: Memories | None, rows: int) -> Float[Tensor, "b p D"]:
        """Return the memory tokens of each row: the learned ones where it has no memories."""
        initial = self.initial.expand(rows, -1, -1)
        if memories is None:
            return initial
        # The learned ones are always part of the graph: distributed training expects a gradient of each parameter.
        return torch.where(memories.seen[..., None], memories.vectors[0].to(initial.dtype), initial)
