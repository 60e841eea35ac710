"""Table of token vectors."""

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.core.adapted_matrix import get_matrix
from lightning_xt.system.option_checks import check_option


class TokenEmbedding(nn.Embedding):
    """Table of token vectors, of the stream's width or narrower.

    The narrower table, with a linear map to the stream: Lan et al., 2019 (ALBERT), https://arxiv.org/abs/1909.11942
    The head reads hidden states that the transposed map has taken back to that width.
    In x-transformers: emb_dim; with a tied head it crashes.

    Args:
        vocab_size: number of different tokens.
        dim: width of the stream.
        embedding_dim: width of the table. None = that of the stream.
        where: part whose option this is, for messages.
    """

    def __init__(self, vocab_size: int, dim: int, embedding_dim: int | None, where: str) -> None:
        check_option(where, "embedding_dim", embedding_dim, least=1)
        super().__init__(vocab_size, dim if embedding_dim is None else embedding_dim)
        self.projection = None if embedding_dim is None else nn.Linear(embedding_dim, dim, bias=False)

    def forward(self, tokens: Int[Tensor, "..."]) -> Float[Tensor, "... D"]:
        x = super().forward(tokens)
        return x if self.projection is None else self.projection(x)

    def map_back(self, x: Float[Tensor, "b n D"]) -> Float[Tensor, "b n _"]:
        """Map hidden states to the width of the table."""
        return x if self.projection is None else F.linear(x, get_matrix(self.projection).T)
