"""Attention by scaled_dot_product_attention, with a dense bias or mask if the lower triangle is not enough.

Windows over whole rows are computed in blocks, with masks of blocks. On a CPU, the lower triangle, single queries and
short rows of training are plain products in bfloat16, which are faster there.
"""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from lightning_xt.nn.attention.kernels.causal_blocks import attend_causal_blocks, blocks_are_faster
from lightning_xt.nn.attention.kernels.scoring import Scoring
from lightning_xt.nn.attention.kernels.short_rows import attend_short_rows, short_rows_are_faster
from lightning_xt.nn.attention.kernels.single_query import attend_single_query, single_query_is_faster
from lightning_xt.nn.attention.kernels.sinks import prepend_sink
from lightning_xt.nn.attention.kernels.window_blocks import find_window_blocks


def attend_fused(q: Tensor, k: Tensor, v: Tensor, scoring: Scoring) -> Tensor:
    """Gather values (b h i e) for queries (b h i d) from keys (b g j d) and values (b g j e)."""
    queries, width, sinks = q.shape[-2], v.shape[-1], scoring.normalizer.get_sinks()
    if sinks is not None and queries == 1 and scoring.dropout == 0:
        # One more key would copy the cache at each decode step.
        return attend_single_query(q, k, v, _make_mask(q, scoring), scoring.scale, sinks)
    if sinks is not None:
        q, k, v, scoring = prepend_sink(q, k, v, sinks, scoring)
    blocks = find_window_blocks(scoring.where)
    if blocks is not None:
        run = partial(_run_kernel, triangle=False, scoring=scoring)
        return blocks.attend(q, k, v, scoring, run)[..., :width]
    mask = _make_mask(q, scoring)
    # Flash kernels take the triangle as a flag; any mask tensor excludes them.
    triangle, memory = mask is None and scoring.where.causal_after_memory, scoring.where.memory
    if triangle and memory:
        # The triangle begins at the first key: queries that are discarded stand before those of tokens.
        q = F.pad(q, (0, 0, memory, 0))
    out = _run_kernel(q, k, v, mask, triangle, scoring)
    return out if out.shape[-2:] == (queries, width) else out[..., -queries:, :width]


def _make_mask(q: Tensor, scoring: Scoring) -> Tensor | None:
    """Make a mask, or a bias, of all pairs; None if every query sees every key, or the triangle is a flag."""
    where, bias = scoring.where, scoring.dense_bias(q.shape[0], q.shape[1])
    if bias is not None:
        bias = bias.to(q.dtype)
        return bias if where.plain_full else bias.masked_fill(~where.dense(), float("-inf"))
    return None if where.causal_after_memory or where.plain_full else where.dense()


def _run_kernel(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, triangle: bool, scoring: Scoring) -> Tensor:
    if triangle and blocks_are_faster(q):
        return attend_causal_blocks(q, k, v, scoring.scale, scoring.dropout)
    if single_query_is_faster(q, scoring.dropout):
        return attend_single_query(q, k, v, mask, scoring.scale)
    if short_rows_are_faster(q, k):
        mask = _make_triangle(q) if triangle else mask
        return attend_short_rows(q, k, v, mask, scoring.scale, scoring.dropout)
    if q.is_cuda and mask is not None:
        with sdpa_kernel(_kernels_for_masks()):
            return _attend(q, k, v, mask, triangle, scoring)
    return _attend(q, k, v, mask, triangle, scoring)


def _make_triangle(q: Tensor) -> Tensor:
    at = torch.arange(q.shape[-2], device=q.device)
    return (at <= at[:, None])[None, None]


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, triangle: bool, scoring: Scoring) -> Tensor:
    grouped = bool(q.shape[1] != k.shape[1])
    if grouped and q.is_cuda and (mask is not None or q.dtype not in (torch.float16, torch.bfloat16)):
        # Of CUDA's kernels only flash knows groups of heads, and it takes neither masks nor float32: the others would
        # leave the work to the math kernel, which holds the weights of all pairs. Copies of the keys are smaller.
        k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
        grouped = False
    width, values = max(q.shape[-1], v.shape[-1]), v.shape[-1]
    if q.device.type == "cpu" and q.shape[-1] != values:
        # A CPU's flash kernel knows heads of one width only; the math kernel holds the weights of all pairs.
        q, k, v = (F.pad(t, (0, width - t.shape[-1])) for t in (q, k, v))
    out = F.scaled_dot_product_attention(
        q, k, v, mask, scoring.dropout, is_causal=triangle, scale=scoring.scale, enable_gqa=grouped
    )
    return out if width == values else out[..., :values]


def _kernels_for_masks() -> list[SDPBackend]:
    """List CUDA's kernels that take a mask, without cuDNN's.

    With a mask, cuDNN's backward pass gives NaN on Hopper at lengths such as 64 and 192 (pytorch issue 196678, from
    torch 2.11 on), and torch prefers cuDNN there.
    """
    # A compiled program must not depend on a global setting at the time of compiling.
    if torch.compiler.is_compiling() or torch.backends.cuda.mem_efficient_sdp_enabled():
        return [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    return [SDPBackend.MATH]
