from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.where import Where
from lightning_xt.nn.embeddings.base import Embedding
from lightning_xt.system.option_checks import check_option


class LearnedPositions(Embedding):
    """Add a learned vector for each absolute position.

    Gehring et al., 2017. https://arxiv.org/abs/1705.03122

    Args:
        max_length: number of positions in the table, and so of tokens in the longest sequence.
    """

    def __init__(self, shape: LayerShape, *, max_length: int = 1024) -> None:
        super().__init__()
        check_option("embeddings: LearnedPositions", "max_length", max_length, least=1)
        self.max_length = max_length
        self.table = nn.Embedding(max_length, shape.dim)

    def forward(self, x: Float[Tensor, "b n D"], where: Where, inputs: Inputs) -> Float[Tensor, "b n D"]:
        if where.end > self.table.num_embeddings:
            raise ValueError(
                f"embeddings: LearnedPositions has max_length {self.max_length}, but the sequence is "
                f"{where.end} tokens long; shorten it, or train with a larger max_length"
            )
        return x + self.table(where.queries)
