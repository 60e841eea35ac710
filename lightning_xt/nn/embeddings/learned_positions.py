import torch
from jaxtyping import Float
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
        self.max_length = max_length
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
        end = where.end
        if end > self.table.num_embeddings and where.query_documents is not None and not torch.compiler.is_compiling():
            # Positions restart at each document.
            end = int(where.queries.max()) + 1
        if not where.cached:
            self.check_end(end)
        # Padding may reach beyond the table.
        return x + self.table(where.queries.clamp(max=self.table.num_embeddings - 1))
