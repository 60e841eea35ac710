import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.previous_tokens import get_previous
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.where import Where
from lightning_xt.nn.embeddings.base import Embedding
from lightning_xt.system.option_checks import check_option


class BigramTable(Embedding):
    """Add a learned vector for each pair of a token and the token before it.

    Cheng et al., 2026 (Engram), https://arxiv.org/abs/2601.07372; in this simple form, without gates and convolutions,
    Larry Dial, 2026, https://github.com/KellerJordan/modded-nanogpt/pull/201
    Each pair of bytes has its own row; the pairs of a larger vocabulary share rows by a hash. The table starts at zero,
    times a learned strength that starts at 0.1. The first token of a document gets nothing.

    Args:
        max_rows: number of rows, or fewer if there are fewer pairs.
    """

    def __init__(self, shape: LayerShape, *, max_rows: int = 65_536) -> None:
        super().__init__()
        check_option("embeddings: BigramTable", "max_rows", max_rows, least=1)
        self.vocab_size = shape.vocab_size
        self.exact = shape.vocab_size**2 <= max_rows
        self.table = nn.Parameter(torch.zeros(shape.vocab_size**2 if self.exact else max_rows, shape.dim))
        self.strength = nn.Parameter(torch.tensor(0.1))

    def forward(
        self, x: Float[Tensor, "b n D"], where: Where, inputs: Inputs, cache: CallCache | None = None
    ) -> Float[Tensor, "b n D"]:
        tokens = inputs.require("tokens", self)
        # Zero stands for no token.
        (before,) = get_previous(tokens[..., None] + 1, where, cache, "token_before")
        before = before[..., 0] - 1
        if self.exact:
            rows = before * self.vocab_size + tokens
        else:
            # Factors of the source; the exclusive or keeps both orders of a pair apart.
            rows = torch.bitwise_xor(36_313 * tokens, 27_191 * before)
        found = F.embedding(rows % len(self.table), self.table).masked_fill((before < 0)[..., None], 0.0)
        return x + (self.strength * found).to(x.dtype)
