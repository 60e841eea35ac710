"""The contract of segments: how a decoder reads a text longer than one forward, and what it remembers."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.memories import Memories
from lightning_xt.core.shapes import LayerShape
from lightning_xt.system.option_checks import check_option


class Segments(nn.Module, ABC):
    """Reading of long rows segment by segment, each of which remembers those before.

    Every part begins again with each segment; attention alone looks into the memories.

    Args:
        length: most tokens of a segment.
        memory: number of remembered tokens.
        dropout: fraction of the remembered tokens that a segment does not see in training.
    """

    adds_tokens: ClassVar[bool] = False
    """True if memories are tokens of the stream, before those of the segment and, to be written, after them."""

    def __init__(self, length: int, memory: int, dropout: float) -> None:
        super().__init__()
        name = f"segments: {type(self).__name__}"
        check_option(name, "length", length, least=1)
        check_option(name, "memory", memory, least=1)
        check_option(name, "dropout", dropout, least=0, below=1)
        self.length, self.memory, self.dropout = length, memory, dropout

    def check_memories(self, memories: Memories, rows: int, calls: int, dim: int) -> None:
        """Refuse memories of another model or number of rows by a ValueError."""
        vectors, widths = memories.vectors, {each.shape[-1] for each in memories.vectors}
        widths |= set() if memories.embedded is None else {memories.embedded.shape[-1]}
        expected = 1 if self.adds_tokens else calls
        if memories.num_rows != rows:
            raise ValueError(
                f"Inputs(memories=...) has {memories.num_rows} row(s), but {rows} were given; give the memories of the "
                "same rows, or select them"
            )
        if len(vectors) != expected or widths != {dim} or memories.num_tokens > self.memory:
            wide = " and ".join(map(str, sorted(widths)))
            raise ValueError(
                f"Inputs(memories=...) has vectors of {len(vectors)} calls, {wide} wide, of "
                f"{memories.num_tokens} tokens, but {type(self).__name__} of this model reads {expected} calls, {dim} "
                f"wide, of up to {self.memory} tokens; give memories of this model"
            )

    def hide(self, memories: Memories) -> Memories:
        """Hide a fraction of the memories in training."""
        if not self.training or not self.dropout:
            return memories
        kept = torch.rand(memories.vectors[0].shape[:2], device=memories.vectors[0].device) >= self.dropout
        return replace(memories, valid=memories.seen & kept)

    def get_tokens(self, memories: Memories | None, rows: int) -> Float[Tensor, "b p D"]:
        """Return the tokens around a segment, those that begin a text where a row has no memories; for `adds_tokens`.

        Every parameter must be part of the graph: distributed training expects a gradient of each.
        """
        raise NotImplementedError(f"{type(self).__name__} adds tokens, but has no get_tokens; define it")

    @abstractmethod
    def choose_vectors(self, reads: tuple[Float[Tensor, "b n D"], ...]) -> tuple[Float[Tensor, "b n D"], ...]:
        """Choose the vectors of the segment to remember for each call that reads some.

        Args:
            reads: vectors that each call of attention read from the stream, then the output of the last layer; with
                `adds_tokens`, the hidden states of the tokens after the segment alone.
        """


SegmentsFactory = Callable[[LayerShape], Segments]
"""Called with the sizes of the model."""
