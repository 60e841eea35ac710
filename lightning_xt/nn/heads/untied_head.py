from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.nn.heads.base import Head


class UntiedHead(Head):
    """Score tokens by a linear map.

    Args:
        bias: True to add a learned bias to each logit.
    """

    def __init__(self, embedding: nn.Embedding, *, bias: bool = False) -> None:
        super().__init__()
        self.to_logits = nn.Linear(embedding.embedding_dim, embedding.num_embeddings, bias=bias)

    def forward(self, x: Float[Tensor, "b n D"]) -> Float[Tensor, "b n v"]:
        return self.to_logits(x)
