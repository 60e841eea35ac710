"""Rules of attention: projections, norms, mods and memory."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.exchange.x_transformers.gate_rules import add_gates
from lightning_xt.exchange.x_transformers.head_order import HeadOrder, find_head_order
from lightning_xt.exchange.x_transformers.norm_rules import share_gains
from lightning_xt.exchange.x_transformers.position_rules import add_own_positions
from lightning_xt.exchange.x_transformers.rule_builder import RuleBuilder
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.normalizers.sink_softmax import SinkSoftmax
from lightning_xt.nn.norms.rms_norm import RMSNorm
from lightning_xt.nn.norms.unit_norm import UnitNorm
from lightning_xt.nn.output_projections.attention_on_attention import AttentionOnAttention
from lightning_xt.nn.projections.multi_head import MultiHead
from lightning_xt.nn.score_mods.talking_heads import TalkingHeads
from lightning_xt.nn.value_mods.value_norm import ValueNorm
from lightning_xt.nn.value_mods.value_residual import ValueResidual

PartT = TypeVar("PartT", bound=nn.Module)


def add_attention(rules: RuleBuilder, ours: Attention, prefix: str, options: Mapping[str, Any]) -> None:
    """Add the rules of one attention with these options."""
    order = find_head_order(ours)
    _add_projection(rules, ours, prefix, order)
    _add_output(rules, ours, prefix, order)
    _add_norms(rules, ours, prefix, order)
    _add_mods(rules, ours, prefix, order)
    add_own_positions(rules, ours, prefix, order)
    add_gates(rules, ours, prefix, order, options)
    if ours.memory is not None:
        _add_memory(rules, ours, ours.memory, prefix, order)


def find_parts(ours: nn.Module, kind: type[PartT]) -> Iterator[PartT]:
    """Yield the parts of a class."""
    return (each for each in ours.modules() if isinstance(each, kind))


def _add_projection(rules: RuleBuilder, ours: Attention, prefix: str, order: HeadOrder) -> None:
    shape, projection = ours.shape, ours.projection
    if not isinstance(projection, MultiHead):
        return
    source = shape.dim if shape.context_dim is None else shape.context_dim
    q = {f"{prefix}to_q.weight": (shape.heads * shape.dim_head, shape.dim)}
    k = {f"{prefix}to_k.weight": (shape.kv_heads * shape.dim_head, source)}
    v = {f"{prefix}to_v.weight": (shape.kv_heads * shape.value_dim, source)}
    if shape.context_dim is None:
        rules.compute(
            projection.to_qkv.weight,
            {**q, **k, **v},
            lambda q, k, v: torch.cat((order.sort_queries(q), order.sort_keys(k), v)),
        )
        return
    rules.compute(projection.to_q.weight, q, order.sort_queries)
    rules.compute(projection.to_kv.weight, {**k, **v}, lambda k, v: torch.cat((order.sort_keys(k), v)))


def _add_output(rules: RuleBuilder, ours: Attention, prefix: str, order: HeadOrder) -> None:
    joined = ours.output_projection
    if joined is None:
        weight = ours.to_out.weight
        rules.compute(weight, {f"{prefix}to_out.weight": tuple(weight.shape)}, order.sort_columns)
    elif isinstance(joined, AttentionOnAttention):
        # Theirs reads the gathered values only.
        weight = joined.from_values.weight
        rules.compute(weight, {f"{prefix}to_out.0.weight": tuple(weight.shape)}, order.sort_columns)
        rules.fill_zeros(joined.from_values.bias)
        rules.fill_zeros(joined.from_input.weight)


def _add_norms(rules: RuleBuilder, ours: Attention, prefix: str, order: HeadOrder) -> None:
    shape = ours.shape
    for letter, norm, heads in (("q", ours.q_norm, shape.heads), ("k", ours.k_norm, shape.kv_heads)):
        if isinstance(norm, UnitNorm) and norm.gain is not None:
            name = f"{prefix}qk_norm_{letter}_scale"
            rules.compute(norm.gain, {name: (heads, 1, shape.dim_head)}, share_gains(name, order.features))
        elif isinstance(norm, RMSNorm):
            _add_head_norm(rules, norm, f"{prefix}{letter}_rmsnorm.gamma", heads, order.features)
    for mod in find_parts(ours.value_mods, ValueNorm):
        if isinstance(mod.norm, RMSNorm):
            _add_head_norm(rules, mod.norm, f"{prefix}value_rmsnorm.gamma", shape.heads, slice(None))


def _add_head_norm(rules: RuleBuilder, norm: RMSNorm, name: str, heads: int, features: Tensor | slice) -> None:
    """Add the rule of an RMSNorm whose gains x-transformers stores for each head, less 1."""
    share = share_gains(name, features)
    rules.compute(norm.gain, {name: (heads, 1, len(norm.gain))}, lambda given: 1 + share(given))


def _add_mods(rules: RuleBuilder, ours: Attention, prefix: str, order: HeadOrder) -> None:
    heads = ours.shape.heads
    for mod in find_parts(ours.score_mods, TalkingHeads):
        own, names = (heads, heads, 1, 1), f"{prefix}attend.{{}}_softmax_talking_heads.weight"
        if mod.score_mix is not None:
            # Theirs adds the mix to the scores.
            rules.compute(mod.score_mix, {names.format("pre"): own}, lambda mix: order.sort_mix(mix) + torch.eye(heads))
        if mod.weight_mix is not None:
            rules.compute(mod.weight_mix, {names.format("post"): own}, order.sort_mix)
    if isinstance(ours.normalizer, SinkSoftmax):
        sinks = {f"{prefix}attend.head_attn_sink": (heads,)}
        rules.compute(ours.normalizer.sinks, sinks, lambda given: given[order.heads])
    for residual in find_parts(ours.value_mods, ValueResidual):
        if residual.to_share is not None:
            linear, name = residual.to_share, f"{prefix}to_value_residual_mix.0."
            rules.compute(linear.weight, {f"{name}weight": tuple(linear.weight.shape)}, order.sort_rows)
            rules.compute(linear.bias, {f"{name}bias": tuple(linear.bias.shape)}, order.sort_rows)


def _add_memory(rules: RuleBuilder, ours: Attention, memory: Tensor, prefix: str, order: HeadOrder) -> None:
    """Add the rule of learned keys and values; qk_norm norms their keys at each forward, as those of tokens."""
    shape, norm = ours.shape, ours.k_norm
    number = memory.shape[-2]
    theirs = {f"{prefix}mem_k": (shape.kv_heads, number, shape.dim_head)}
    theirs[f"{prefix}mem_v"] = (shape.kv_heads, number, shape.value_dim)
    unit = norm if isinstance(norm, UnitNorm) else None
    if unit is not None and unit.gain is not None:
        theirs[f"{prefix}qk_norm_k_scale"] = (shape.kv_heads, 1, shape.dim_head)
    stacked = memory.dim() == 4

    def join(keys: Tensor, values: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        if unit is not None:
            keys = F.normalize(keys.unflatten(-1, (unit.groups, -1)), dim=-1).flatten(-2) * scale * unit.start
        keys = keys[..., order.features]
        return torch.stack((keys, values)) if stacked else torch.cat((keys, values), -1)

    rules.compute(memory, theirs, join)
