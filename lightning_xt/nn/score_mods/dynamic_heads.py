from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.score_mods.base import Scored, ScoreMod
from lightning_xt.system.option_checks import check_option


class Mixing(NamedTuple):
    """Mixes of heads, for one token each: a product of two narrow matrices, and a gate per head."""

    down: Float[Tensor, "b n h _"]
    up: Float[Tensor, "b n _ h"]
    gate: Float[Tensor, "b n h"]

    @property
    def matrix(self) -> Float[Tensor, "b n h h"]:
        """The mix from heads (rows) to heads (columns)."""
        return self.down @ self.up + self.gate.diag_embed()


class DynamicHeads(ScoreMod):
    """Mix the scores of heads before the normalizer, and the weights after it, by matrices of query and key tokens.

    Xiao et al., 2024 (dynamically composable multi-head attention). https://arxiv.org/abs/2405.08553
    Each token makes, from its hidden state, a mix of low rank and a gate per head for pairs in which it is the query,
    and others for those in which it is the key. All are added to the unmixed scores. At the start they are zero.

    Args:
        rank: rank of the mixes.
    """

    signed = True
    self_attention_only = True

    def __init__(self, shape: AttentionShape, *, rank: int = 2) -> None:
        super().__init__()
        check_option("score_mods: DynamicHeads", "rank", rank, least=1)
        self.heads, self.rank = shape.heads, rank
        # For the query and the key, before and after the normalizer.
        self.widths = (shape.heads * rank, shape.heads * rank, shape.heads)
        self.to_hidden = nn.Linear(shape.dim, 4 * 2 * shape.heads * rank, bias=False)
        self.to_mixes = nn.Parameter(torch.zeros(4, 2 * shape.heads * rank, sum(self.widths)))
        # Both matrices at zero would have no gradient.
        nn.init.normal_(self.to_mixes[..., : self.widths[0]], std=(2 * shape.heads * rank) ** -0.5)

    def prepare(self, call: Scored) -> tuple[Float[Tensor, "b 2 i _"], Float[Tensor, "b 2 j _"]]:
        """Make the mixes of the new tokens as queries, and of all tokens as keys."""
        hidden = F.gelu(self.to_hidden(call.x)).unflatten(-1, (4, -1)).transpose(1, 2)
        queries, keys = (hidden @ self.to_mixes.to(hidden.dtype)).split(2, dim=1)
        if call.cache is not None:
            keys = call.cache.append("mixes", keys, window=call.window)
        return queries, F.pad(keys, (0, 0, call.where.memory, 0))

    def forward(self, scores: Float[Tensor, "b h i j"], p: Any = None) -> Float[Tensor, "b h i j"]:
        return self._mix(scores, p[0][:, 0], p[1][:, 0])

    def modify_weights(self, weights: Float[Tensor, "b h i j"], p: Any) -> Float[Tensor, "b h i j"]:
        return self._mix(weights, p[0][:, 1], p[1][:, 1])

    def _mix(
        self, scores: Float[Tensor, "b h i j"], queries: Float[Tensor, "b i _"], keys: Float[Tensor, "b j _"]
    ) -> Float[Tensor, "b h i j"]:
        query, key = self._split(queries.to(scores.dtype)), self._split(keys.to(scores.dtype))
        # One small matrix for each query, and one for each key.
        by_query = (query.matrix.mT @ scores.transpose(1, 2)).transpose(1, 2)
        by_key = (key.matrix.mT @ scores.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return scores + by_query + by_key

    def _split(self, mixes: Float[Tensor, "b n _"]) -> Mixing:
        down, up, gate = mixes.split(self.widths, dim=-1)
        # Scaled as in the paper, which norms one of both matrices.
        down = F.rms_norm(down.unflatten(-1, (self.heads, self.rank)).mT, (self.heads,)).mT
        return Mixing(down, up.unflatten(-1, (self.rank, self.heads)), gate.tanh())
