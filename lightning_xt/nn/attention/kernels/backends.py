"""The ways of computing attention, and the one place that chooses among them.

fused      scaled_dot_product_attention: softmax, with a dense bias or mask where the lower triangle is not enough;
           the lower triangle and single queries in bfloat16 on a CPU in plain products, which are faster there
flex       flex_attention: biases, windows and soft caps without a dense tensor; compiled, on CUDA
explicit   plain products: every part works here, and it is what the others are tested against
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import flex_attention

from lightning_xt.core.where import Where
from lightning_xt.nn.attention.kernels.causal_blocks import causal_in_blocks, pays_in_blocks
from lightning_xt.nn.attention.kernels.single_query import attend_alone, pays_alone
from lightning_xt.nn.normalizers.base import Normalizer
from lightning_xt.nn.positions.base import Position
from lightning_xt.nn.score_mods.base import ScoreMod
from lightning_xt.nn.scores.base import Score

Backend = Literal["auto", "fused", "flex", "explicit"]


@dataclass(frozen=True, eq=False)
class Scoring:
    """All that turns queries, keys and values into gathered values.

    Args:
        score: fits queries to keys.
        position: its bias is added to the scores. None = no positions.
        prepared: what the position prepared for its bias.
        score_mods: change the scaled products, in order, before the bias is added.
        normalizer: turns scores into weights.
        where: positions and mask.
        scale: factor on the products.
        dropout: share of the weights that is dropped; 0 outside training.
    """

    score: Score
    position: Position | None
    prepared: Any
    score_mods: Iterable[ScoreMod]
    normalizer: Normalizer
    where: Where
    scale: float
    dropout: float

    def bias(self, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor | None:
        """Position's bias, elementwise; persistent keys get none."""
        if self.position is None or not self.position.biased:
            return None
        if not self.where.memory:
            return self.position.bias(b, h, i, j, self.prepared)
        inside = self.position.bias(b, h, i, (j - self.where.memory).clamp(min=0), self.prepared)
        return torch.where(j < self.where.memory, 0.0, inside)

    def one(self, score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """One score, given the scaled product: what flex_attention calls."""
        for mod in self.score_mods:
            score = mod(score)
        bias = self.bias(b if self.rows_differ else torch.zeros_like(b), h, i, j)
        return score if bias is None else score + bias

    @property
    def rows_differ(self) -> bool:
        """Whether the bias is not the same in every row."""
        return self.where.rows > 1 or (self.position is not None and self.position.per_row)

    def dense_bias(self, batch: int, heads: int) -> Tensor | None:
        """The same as a tensor (#b h i j), one row where all rows share it."""
        b, i, j = self.where.indices(batch if self.rows_differ else 1)
        return self.bias(b, torch.arange(heads, device=b.device).view(1, -1, 1, 1), i, j)


def supported(
    backend: Backend, parts: Sequence[Score | Position | ScoreMod | Normalizer], dropout: float
) -> frozenset[str]:
    """Backends that all parts of an attention can run on.

    Raises:
        ValueError: the demanded one is not among them; the message names the part that stands in the way.
    """
    if backend not in ("auto", "explicit"):
        for part in parts:
            if backend not in part.backends:
                raise ValueError(
                    f"attention: backend '{backend}' cannot compute {type(part).__name__}, which runs on "
                    f"{', '.join(sorted(part.backends))}; use 'auto'"
                )
        if backend == "flex" and dropout > 0:
            raise ValueError(
                f"attention: backend 'flex' has no dropout, but dropout is {dropout}; use 'auto' or dropout 0"
            )
    everything = frozenset({"fused", "flex", "explicit"} if dropout == 0 else {"fused", "explicit"})
    return everything.intersection(*(part.backends for part in parts))


def choose(backend: Backend, can: frozenset[str], position: Position | None, where: Where, device: str) -> str:
    """The backend for one forward: what was demanded, else the fastest that can."""
    if backend != "auto":
        return backend
    simple = where.plain_causal or where.plain_full
    needs_dense = not simple or (position is not None and position.biased)
    long = where.queries.shape[-1] >= 128
    if "flex" in can and device == "cuda" and long and (needs_dense or "fused" not in can):
        return "flex"
    return "fused" if "fused" in can else "explicit"


def attend(backend: str, q: Tensor, k: Tensor, v: Tensor, scoring: Scoring) -> Tensor:
    """Gathers values (b h i e) for queries (b h i d) from keys (b g j d) and values (b g j e)."""
    return {"fused": _fused, "flex": _flex, "explicit": _explicit}[backend](q, k, v, scoring)


def _fused(q: Tensor, k: Tensor, v: Tensor, scoring: Scoring) -> Tensor:
    where, mask = scoring.where, scoring.dense_bias(q.shape[0], q.shape[1])
    # Flash kernels take the triangle as a flag; with any mask tensor they are lost.
    triangle = mask is None and where.plain_causal
    if mask is not None:
        mask = mask.to(q.dtype)
        mask = mask if where.plain_full else mask.masked_fill(~where.dense(), float("-inf"))
    elif not (triangle or where.plain_full):
        mask = where.dense()
    if triangle and pays_in_blocks(q):
        return causal_in_blocks(q, k, v, scoring.scale, scoring.dropout)
    if pays_alone(q, scoring.dropout):
        return attend_alone(q, k, v, mask, scoring.scale)
    grouped = bool(q.shape[1] != k.shape[1])
    return F.scaled_dot_product_attention(
        q, k, v, mask, scoring.dropout, is_causal=triangle, scale=scoring.scale, enable_gqa=grouped
    )


def _flex(q: Tensor, k: Tensor, v: Tensor, scoring: Scoring) -> Tensor:
    where = scoring.where
    run = _compiled_flex() if q.is_cuda else flex_attention
    out = run(
        q,
        k,
        v,
        score_mod=lambda score, b, h, i, j: scoring.one(score, b, h, i, j),
        block_mask=None if where.plain_full else where.block_mask(),
        scale=scoring.scale,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return out if isinstance(out, Tensor) else out[0]


@lru_cache(maxsize=1)
def _compiled_flex() -> Any:
    return torch.compile(flex_attention, dynamic=False)


def _explicit(q: Tensor, k: Tensor, v: Tensor, scoring: Scoring) -> Tensor:
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
    scores = scoring.score(q, k, scoring.scale)
    for mod in scoring.score_mods:
        scores = mod(scores)
    if scoring.position is not None and scoring.position.paired:
        own = scoring.where.memory
        added = scoring.position.pairwise(scores[..., own:], q, scoring.where.with_memory(0))
        scores = scores + nn.functional.pad(added, (own, 0))
    bias = scoring.dense_bias(q.shape[0], q.shape[1])
    if bias is not None:
        scores = scores + bias.to(scores.dtype)
    weights = scoring.normalizer(scores, scoring.where.dense())
    for mod in scoring.score_mods:
        weights = mod.weights(weights)
    return nn.functional.dropout(weights, scoring.dropout) @ v
