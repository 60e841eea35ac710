from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.autocast import disable_autocast
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.core.where import Where
from lightning_xt.nn.positions.base import Position
from lightning_xt.system.option_checks import check_option


class Contextual(Position):
    """Count positions by gates that each query opens for the keys that fit it (CoPE).

    Golovneva et al., 2024. https://arxiv.org/abs/2405.18719
    The position of a key is the sum of the gates from it up to the query, a gate being the sigmoid of the score; its
    embedding is interpolated between the two whole positions around it. The table is shared by the heads of a layer.
    In x-transformers: attn_use_cope, attn_cope_max_pos.

    Args:
        max_position: number of positions in the table; larger ones share the last.
    """

    backends = frozenset({"explicit"})
    looks_back = True

    def __init__(self, shape: AttentionShape, *, max_position: int = 64) -> None:
        super().__init__()
        if not shape.causal or shape.context_dim is not None:
            raise ValueError(
                "position: Contextual counts back from each query, so it serves causal self-attention only; choose "
                "another"
            )
        check_option("position: Contextual", "max_position", max_position, least=1)
        self.max_position = max_position
        self.table = nn.Parameter(torch.zeros(shape.dim_head, max_position))

    def pairwise(
        self,
        scores: Float[Tensor, "b h i j"],
        q: Float[Tensor, "b h i d"],
        k: Float[Tensor, "b h j d"],
        where: Where,
        p: Any,
        scale: float,
    ) -> Float[Tensor, "b h i j"]:
        precise = torch.promote_types(scores.dtype, torch.float32)
        gates = scores.to(precise).sigmoid().masked_fill(~where.dense(), 0.0)
        # A window's cache is a ring: its slots are not in the order of positions.
        times = where.keys if where.order is None else where.order
        order = times.argsort(dim=-1)[:, None, None].expand_as(gates)
        counted = gates.gather(-1, order).flip(-1).cumsum(dim=-1).flip(-1).clamp(max=self.max_position - 1)
        with disable_autocast(q):
            known = q.to(precise) @ self.table.to(precise)
        below, above = (known.gather(-1, whole.long()) for whole in (counted.floor(), counted.ceil()))
        added = below + (counted - counted.floor()) * (above - below)
        return torch.zeros_like(added).scatter(-1, order, added).to(scores.dtype)
