"""The backends of attention, and the one place that chooses among them.

fused      scaled_dot_product_attention
flex       flex_attention, compiled, on CUDA
explicit   plain products: every part works here, and the others are tested against it
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from lightning_xt.nn.attention.kernels.explicit import attend_explicit
from lightning_xt.nn.attention.kernels.flex import attend_flex
from lightning_xt.nn.attention.kernels.fused import attend_fused
from lightning_xt.nn.attention.kernels.scoring import Scoring
from lightning_xt.nn.normalizers.base import Normalizer
from lightning_xt.nn.positions.base import Position
from lightning_xt.nn.score_mods.base import ScoreMod
from lightning_xt.nn.scores.base import Score

Backend = Literal["auto", "fused", "flex", "explicit"]


def supported_backends(
    backend: Backend, parts: Sequence[Score | Position | ScoreMod | Normalizer], dropout: float
) -> frozenset[str]:
    """Return the backends that all parts of an attention can run on; ValueError if one cannot run on the requested."""
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


def choose_backend(backend: Backend, supported: frozenset[str], scoring: Scoring, device: str) -> str:
    """Choose the backend of one forward: the requested one, else the fastest supported one."""
    if scoring.record is not None:
        return "explicit"
    if backend != "auto":
        return backend
    where, position = scoring.where, scoring.position
    simple = where.causal_after_memory or where.plain_full
    needs_dense = not simple or scoring.own_bias is not None or (position is not None and position.biased)
    long = where.queries.shape[-1] >= 128
    if "flex" in supported and device == "cuda" and long and (needs_dense or "fused" not in supported):
        return "flex"
    return "fused" if "fused" in supported else "explicit"


def attend(backend: str, q: Tensor, k: Tensor, v: Tensor, scoring: Scoring) -> Tensor:
    """Gather values (b h i e) for queries (b h i d) from keys (b g j d) and values (b g j e)."""
    return {"fused": attend_fused, "flex": attend_flex, "explicit": attend_explicit}[backend](q, k, v, scoring)
