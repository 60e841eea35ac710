"""Attention by flex_attention: biases, windows and soft caps without a dense tensor; compiled, on CUDA."""

from functools import lru_cache
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import AuxRequest, flex_attention

from lightning_xt.core.block_masks import BLOCK
from lightning_xt.nn.attention.kernels.scoring import Scoring

PROGRAMS = 64
"""Compiled programs at most, one for each combination of shapes and parts. Torch's own limit is 8, after which
flex_attention silently materializes the scores of all pairs."""


def attend_flex(q: Tensor, k: Tensor, v: Tensor, scoring: Scoring) -> Tensor:
    """Gather values (b h i e) for queries (b h i d) from keys (b g j d) and values (b g j e).

    Lengths are padded to multiples of a block, for two reasons. Programs are made for one shape, because flex_attention
    is slower with dynamic ones: so one serves all lengths within a block, and another the multiple itself, whose
    tensors have other strides. And with both a block mask and a score mod, the backward pass gives NaN at other lengths
    (pytorch issue 153799, open).
    """
    n, scoring = q.shape[-2], scoring.pad_to_blocks()
    queries, keys = -n % BLOCK, -k.shape[-2] % BLOCK
    if queries:
        q = F.pad(q, (0, 0, 0, queries))
    if keys:
        k, v = (F.pad(t, (0, 0, 0, keys)) for t in (k, v))
    sinks = scoring.normalizer.get_sinks()
    more = {} if sinks is None else {"return_aux": AuxRequest(lse=True)}
    run = compile_flex() if q.is_cuda and not torch.compiler.is_compiling() else flex_attention
    out = run(
        q,
        k,
        v,
        score_mod=lambda score, b, h, i, j: scoring.modify(score, b, h, i, j),
        block_mask=None if scoring.where.plain_full else scoring.where.block_mask(),
        scale=scoring.scale,
        enable_gqa=q.shape[1] != k.shape[1],
        **more,
    )
    if isinstance(out, Tensor):
        return out[..., :n, :]
    gathered, aux = out
    if sinks is not None and aux.lse is not None:
        # A softmax over one more key leaves sigmoid(lse - sink) of the weight to the others.
        kept = (aux.lse - sinks.to(aux.lse.dtype)[:, None]).sigmoid()
        gathered = gathered * kept.unsqueeze(-1).to(gathered.dtype)
    return gathered[..., :n, :]


@lru_cache(maxsize=1)
def compile_flex(**options: Any) -> Any:
    """Compile flex_attention for fixed shapes; the options are those of torch.compile."""
    if "recompile_limit" in signature(torch.compile).parameters:
        options["recompile_limit"] = PROGRAMS
    return torch.compile(flex_attention, dynamic=False, **options)
