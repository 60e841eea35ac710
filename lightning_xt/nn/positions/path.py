from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.core.autocast import disable_autocast
from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.nn.positions.base import Position


class PaTH(Position):
    """Transform each key by a Householder-like reflection for every token after it up to the query.

    Yang et al., 2025. https://arxiv.org/abs/2505.16381
    The reflection of a token is I - beta w w^T, with a unit vector w and a beta from 0 to 2 that are linear maps of the
    token, for each key head; a masked token has none. The paper makes w by a map of low rank and a short convolution,
    and computes in blocks of tokens; here all tokens are one block, which takes time cubic in their number. Score mods
    see the products without reflections.
    """

    backends = frozenset({"explicit"})
    looks_back = True
    gate_maps = ("to_beta",)

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__()
        if not shape.causal or shape.context_dim is not None:
            raise ValueError(
                "position: PaTH reflects by the tokens between, so it serves causal self-attention only; choose another"
            )
        self.group = shape.heads // shape.kv_heads
        self.to_direction = nn.Linear(shape.dim, shape.kv_heads * shape.dim_head, bias=False)
        self.to_beta = nn.Linear(shape.dim, shape.kv_heads)

    def prepare(
        self, x: Float[Tensor, "b i D"], where: Where, window: int | None, cache: CallCache | None, trace: Trace
    ) -> Float[Tensor, "b g j _"]:
        precise = torch.promote_types(x.dtype, torch.float32)
        beta = 2 * self.to_beta(x).to(precise).sigmoid()
        if where.valid is not None:
            beta = beta.masked_fill(~where.valid[..., None], 0.0)
        direction = self.to_direction(x).to(precise).unflatten(-1, (beta.shape[-1], -1)).transpose(1, 2)
        known = torch.cat((F.normalize(direction, dim=-1), beta.mT[..., None]), dim=-1)
        return known if cache is None else cache.append("reflections", known, window=window)

    def pairwise(
        self,
        scores: Float[Tensor, "b h i j"],
        q: Float[Tensor, "b h i d"],
        k: Float[Tensor, "b h j d"],
        where: Where,
        p: Any,
        scale: float,
    ) -> Float[Tensor, "b h i j"]:
        keys = queries = torch.arange(k.shape[-2], device=k.device)[None]
        if where.cached:
            # A window's cache is a ring: its slots are not in the order of positions.
            keys, queries = where.keys, where.queries
        order = keys.argsort(dim=-1)
        at = order[:, None, :, None].expand(q.shape[0], 1, -1, -1)
        known = p.gather(2, at.expand(-1, p.shape[1], -1, p.shape[-1])).repeat_interleave(self.group, dim=1)
        w, beta = known.split((known.shape[-1] - 1, 1), dim=-1)
        k = k.to(w.dtype).gather(2, at.expand(-1, k.shape[1], -1, k.shape[-1]))
        until = (keys.gather(1, order)[:, None, :] <= queries[:, :, None])[:, None]
        with disable_autocast(w):
            # With c_s = beta_s w_s . (reflected k): T c = diag(beta) W k after j, where T is unit lower triangular.
            read = (q.to(w.dtype) @ w.mT).masked_fill(~until, 0.0)
            triangle = (beta * (w @ w.mT)).tril(-1)
            solved = torch.linalg.solve_triangular(triangle.mT, read.mT, upper=True, unitriangular=True).mT
            added = -scale * solved @ (beta * (w @ k.mT)).tril(-1)
        return torch.zeros_like(added).scatter(-1, at.mT.expand_as(added), added).to(scores.dtype)
