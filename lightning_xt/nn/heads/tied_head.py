import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.nn.heads.base import Head
from lightning_xt.system.option_checks import check_option


class TiedHead(Head):
    """Score tokens by the product with their embeddings, so that input and output share one table.

    Press and Wolf, 2016. https://arxiv.org/abs/1608.05859
    In x-transformers: tie_embedding, tie_embedding_scale.

    Args:
        scale: factor of the hidden states. None = one divided by the root of their width, as in T5.
        bias: True to add a learned bias to each logit, as Marian does.
    """

    def __init__(self, embedding: nn.Embedding, *, scale: float | None = 1.0, bias: bool = False) -> None:
        super().__init__()
        check_option("head: TiedHead", "scale", scale, above=0)
        self.weight = embedding.weight
        self.scale = embedding.embedding_dim**-0.5 if scale is None else scale
        self.bias = nn.Parameter(torch.zeros(embedding.num_embeddings)) if bias else None

    def forward(self, x: Float[Tensor, "b n D"]) -> Float[Tensor, "b n v"]:
        return F.linear(x if self.scale == 1 else self.scale * x, self.weight, self.bias)
