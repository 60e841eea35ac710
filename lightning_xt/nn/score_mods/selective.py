from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from lightning_xt.core.autocast import disable_autocast
from lightning_xt.core.packed_documents import find_document_starts
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.core.where import Where
from lightning_xt.nn.score_mods.base import Scored, ScoreMod


class Selective(ScoreMod):
    """Lower the scores of keys that earlier tokens have deselected, for all heads.

    Leviathan, Kalman and Matias, 2024. https://arxiv.org/abs/2410.02703
    A token deselects earlier ones by its positive scores in the first head, for all tokens after it. It never deselects
    itself nor the first token of a row or document. While decoding, the queries of the first head are cached, and
    their scores computed again.
    In x-transformers: attn_selective.
    """

    looks_back = True
    lowers_scores = True
    reads_keys = True
    self_attention_only = True

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__()
        if not shape.causal or shape.context_dim is not None:
            raise ValueError(
                "score_mods: Selective adds up over earlier queries, so it serves causal self-attention only; choose "
                "another"
            )

    def prepare(self, call: Scored) -> Float[Tensor, "b 1 i j"]:
        """Add up the deselections of each key by the tokens before each query."""
        where, queries = call.where, call.queries[:, :1]
        keys = call.keys[:, :1, where.memory :]
        if call.cache is not None:
            queries = call.cache.append("selectors", queries, window=call.window)
        precise = torch.promote_types(queries.dtype, torch.float32)
        scores = (queries @ keys.mT * call.scale).to(precise).relu()
        selected = scores.masked_fill(~self._find_selectable(where), 0.0)
        if call.cache is None:
            # Shifted by one query: a token deselects for those after it.
            sums = F.pad(selected, (0, 0, 1, -1)).cumsum(dim=-2)
        else:
            earlier = where.keys[:, None, None, :] < where.queries[:, None, :, None]
            with disable_autocast(selected):
                sums = (earlier & (where.keys >= 0)[:, None, None]).to(precise) @ selected
        return F.pad(sums, (where.memory, 0)) if where.memory else sums

    def _find_selectable(self, where: Where) -> Bool[Tensor, "#b 1 j j"]:
        """Find the pairs of a token and an earlier one, not the first, that it sees."""
        at = where.keys
        if where.cached:
            seen = (at[:, None, None, :] < at[:, None, :, None]) & (at >= 0)[:, None, None]
        else:
            seen = where.drop_memory().dense().tril(-1)
        if where.valid is not None:
            seen = seen & where.valid[:, None, :, None]
        # Positions of the caller may begin anywhere, and those of documents begin again.
        index = at if where.order is None else where.order
        if where.order is not None and where.key_documents is not None:
            index = index - find_document_starts(where.key_documents)
        return seen & (index != 0)[:, None, None]

    def forward(self, scores: Float[Tensor, "b h i j"], p: Any = None) -> Float[Tensor, "b h i j"]:
        return scores - p.to(scores.dtype)
