from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.nn.heads.base import Head


class TiedHead(Head):
    """Score tokens by the product with their embeddings, so that input and output share one table.

    Press and Wolf, 2016. https://arxiv.org/abs/1608.05859
    In x-transformers: tie_embedding.
    """

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.weight = embedding.weight

    def forward(self, x: Float[Tensor, "b n D"]) -> Float[Tensor, "b n v"]:
        return F.linear(x, self.weight)
