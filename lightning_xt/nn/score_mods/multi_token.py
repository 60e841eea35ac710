from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.core.previous_tokens import get_previous
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.core.where import Where
from lightning_xt.nn.score_mods.base import Scored, ScoreMod
from lightning_xt.system.option_checks import check_option


class MultiToken(ScoreMod):
    """Mix the score of a pair with those of earlier queries and neighbouring keys, by a convolution of each head.

    Golovneva et al., 2025 (multi-token attention). https://arxiv.org/abs/2504.00927
    This is the convolution over queries and keys before the softmax, of products that a query cannot see set to 0; the
    start is the identity. The paper also mixes heads, as TalkingHeads does, and norms each head's output. Neighbours
    outside a window are not mixed in.

    Args:
        num_queries: number of queries that are mixed: the own one and those before it.
        num_keys: number of neighbouring keys that are mixed, the own one in the middle.
    """

    looks_back = True
    reads_keys = True
    self_attention_only = True

    def __init__(self, shape: AttentionShape, *, num_queries: int = 6, num_keys: int = 11) -> None:
        super().__init__()
        if not shape.causal or shape.context_dim is not None:
            raise ValueError(
                "score_mods: MultiToken mixes in earlier queries, so it serves causal self-attention only; choose "
                "another"
            )
        check_option("score_mods: MultiToken", "num_queries", num_queries, least=1)
        check_option("score_mods: MultiToken", "num_keys", num_keys, least=1)
        self.num_queries, self.num_keys = num_queries, num_keys
        self.kernel = nn.Parameter(torch.zeros(shape.heads, num_queries, num_keys))
        nn.init.ones_(self.kernel[:, 0, num_keys // 2])

    def prepare(self, call: Scored) -> Float[Tensor, "b h i j"]:
        """Compute the difference between mixed and own scores."""
        where, queries = call.where, [call.queries]
        if self.num_queries > 1:
            queries += get_previous(call.queries, where, call.cache, "earlier_queries", self.num_queries - 1)
        keys = call.keys[..., where.memory :, :].repeat_interleave(call.queries.shape[1] // call.keys.shape[1], dim=1)
        products = torch.stack(queries, dim=2) @ (call.scale * keys.mT).unsqueeze(2)
        products = self._hide(products, where.drop_memory())
        mixed = self._mix_in_order(products, where) - products[:, :, 0]
        return F.pad(mixed, (where.memory, 0))

    def _hide(self, products: Float[Tensor, "b h t i j"], where: Where) -> Float[Tensor, "b h t i j"]:
        """Set products of an earlier query with later keys, and with keys that its later query cannot see, to 0."""
        if where.cached:
            at_query, at_key = where.queries, where.keys
        else:
            at_query = at_key = torch.arange(where.keys.shape[-1], device=where.keys.device)[None]
        back = torch.arange(products.shape[2], device=where.keys.device).view(-1, 1, 1)
        earlier = at_key[:, None, None, None, :] <= at_query[:, None, None, :, None] - back
        return products.masked_fill(~(earlier & where.dense().unsqueeze(2)), 0.0)

    def _mix_in_order(self, products: Float[Tensor, "b h t i j"], where: Where) -> Float[Tensor, "b h i j"]:
        """Convolve over keys in the order of their positions, which a window's cache, a ring, does not keep."""
        if not where.cached:
            return self._convolve(products)
        order = where.keys.argsort(dim=-1)[:, None, None, None]
        mixed = self._convolve(products.gather(-1, order.expand_as(products)))
        return torch.zeros_like(mixed).scatter(-1, order[:, :, 0].expand_as(mixed), mixed)

    def _convolve(self, products: Float[Tensor, "b h t i j"]) -> Float[Tensor, "b h i j"]:
        before = self.num_keys // 2
        rows = products.permute(0, 3, 1, 2, 4).flatten(2, 3).flatten(0, 1)
        padded = F.pad(rows, (before, self.num_keys - 1 - before))
        mixed = F.conv1d(padded, self.kernel.to(rows.dtype), groups=len(self.kernel))
        return mixed.unflatten(0, (products.shape[0], -1)).transpose(1, 2)

    def forward(self, scores: Float[Tensor, "b h i j"], p: Any = None) -> Float[Tensor, "b h i j"]:
        return scores + p.to(scores.dtype)
