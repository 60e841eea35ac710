import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.where import Where
from lightning_xt.nn.embeddings.base import Embedding
from lightning_xt.system.option_checks import check_option


class LearnedPositions(Embedding):
    """Add a learned vector for each absolute position.

    Gehring et al., 2017. https://arxiv.org/abs/1705.03122
    In x-transformers: use_abs_pos_emb.

    Args:
        max_length: number of positions in the table, and so of tokens in the longest sequence.
    """

    def __init__(self, shape: LayerShape, *, max_length: int = 1024) -> None:
        super().__init__()
        check_option("embeddings: LearnedPositions", "max_length", max_length, least=1)
        self.max_length: int = max_length
        self.table = nn.Embedding(max_length, shape.dim)

    def check_end(self, end: int) -> None:
        if end > self.table.num_embeddings:
            raise ValueError(
                f"embeddings: LearnedPositions has max_length {self.max_length}, but the sequence is "
                f"{end} tokens long; shorten it, or train with a larger max_length"
            )

    def forward(
        self, x: Float[Tensor, "b n D"], where: Where, inputs: Inputs, cache: CallCache | None = None
    ) -> Float[Tensor, "b n D"]:
        if where.order is not None or (where.query_documents is not None and where.end > self.max_length):
            # Positions of the caller may be any, and those of documents restart.
            self._check_positions(where.queries)
        elif not where.cached:
            self.check_end(where.end)
        # Padding may reach beyond the table.
        return x + self.table(where.queries.clamp(max=self.max_length - 1))

    def _check_positions(self, positions: Int[Tensor, "#b n"]) -> None:
        """Refuse positions outside the table; a compiled program, which cannot wait for them, fails by an assertion."""
        last = self.max_length - 1
        rule = f"embeddings: LearnedPositions has max_length {self.max_length}, so positions are 0 to {last}"
        if torch.compiler.is_compiling():
            torch._assert_async(((positions >= 0) & (positions <= last)).all(), rule)
            return
        lowest, highest = int(positions.min()), int(positions.max())
        if lowest < 0 or highest > last:
            raise ValueError(
                f"{rule}, but tokens have positions from {lowest} to {highest}; give others, shorten the documents, or "
                "train with a larger max_length"
            )
