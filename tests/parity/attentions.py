"""Copies of attention: projections, positions, mods and memory."""

from typing import NamedTuple

import torch
from parity.ledger import Ledger
from parity.parts import copy_linear
from torch import Tensor, nn
from torch.nn import functional as F


class Order(NamedTuple):
    """Order of their heads and features in our weights.

    Args:
        heads: their query head for each of our heads: heads that share a key are neighbours here, and strided there.
        features: their feature of a head for each of our features: rotated pairs are halves here, and neighbours there.
    """

    heads: Tensor
    features: Tensor


def find_order(theirs: nn.Module, rotary: nn.Module | None) -> Order:
    """Find the order of heads and of rotated features."""
    groups = theirs.kv_heads
    heads = torch.arange(theirs.heads).view(-1, groups).T.flatten()
    features = torch.arange(theirs.to_q.weight.shape[0] // theirs.heads)
    if rotary is not None:
        rotated = 2 * len(rotary.inv_freq)
        features = torch.cat((features[:rotated:2], features[1:rotated:2], features[rotated:]))
    return Order(heads, features)


def copy_attention(theirs: nn.Module, ours: nn.Module, ledger: Ledger, rotary: nn.Module | None) -> None:
    """Copy one attention."""
    order = find_order(theirs, rotary)
    q = ledger.take(theirs.to_q.weight).unflatten(0, (theirs.heads, -1))[order.heads][:, order.features].flatten(0, 1)
    k = ledger.take(theirs.to_k.weight).unflatten(0, (theirs.kv_heads, -1))[:, order.features].flatten(0, 1)
    v = ledger.take(theirs.to_v.weight)
    if ours.shape.context_dim is None:
        ledger.fill(ours.projection.to_qkv.weight, torch.cat((q, k, v)))
    else:
        ledger.fill(ours.projection.to_q.weight, q)
        ledger.fill(ours.projection.to_kv.weight, torch.cat((k, v)))
    _copy_output(theirs, ours, ledger, order)
    _copy_norms(theirs, ours, ledger, order)
    _copy_score_parts(theirs, ours, ledger, order)
    _copy_positions(theirs, ours, ledger, order)
    _copy_gates(theirs, ours, ledger, order)
    if theirs.num_mem_kv:
        keys = _norm_memory(theirs, ours, ledger)[..., order.features]
        values = ledger.take(theirs.mem_v)
        ledger.fill(
            ours.memory, torch.stack((keys, values)) if ours.memory.dim() == 4 else torch.cat((keys, values), -1)
        )
    if isinstance(theirs.to_value_residual_mix, nn.Sequential):
        copy_linear(theirs.to_value_residual_mix[0], _find(ours, "ValueResidual").to_share, ledger, order.heads)


def _norm_memory(theirs: nn.Module, ours: nn.Module, ledger: Ledger) -> Tensor:
    """Return the learned keys; theirs are normed at each forward, as those of tokens are."""
    keys = ledger.take(theirs.mem_k)
    if not theirs.qk_norm:
        return keys
    units = F.normalize(keys.unflatten(-1, (theirs.qk_norm_groups, -1)), dim=-1).flatten(-2)
    return units * (ours.k_norm.start if ours.k_norm.gain is None else theirs.qk_norm_k_scale)


def _find(ours: nn.Module, kind: str) -> nn.Module:
    """Find the only part of a class in an attention."""
    (found,) = (each for each in ours.modules() if type(each).__name__ == kind)
    return found


def _copy_output(theirs: nn.Module, ours: nn.Module, ledger: Ledger, order: Order) -> None:
    gated = isinstance(theirs.to_out, nn.Sequential)
    weight = ledger.take((theirs.to_out[0] if gated else theirs.to_out).weight)
    joined = weight.unflatten(1, (theirs.heads, -1))[:, order.heads].flatten(1)
    if not gated:
        ledger.fill(ours.to_out.weight, joined)
        return
    # Theirs reads the gathered values only.
    projection = ours.output_projection
    ledger.fill(projection.from_values.weight, joined)
    ledger.fill(projection.from_values.bias, torch.zeros_like(projection.from_values.bias))
    ledger.fill(projection.from_input.weight, torch.zeros_like(projection.from_input.weight))


def _copy_norms(theirs: nn.Module, ours: nn.Module, ledger: Ledger, order: Order) -> None:
    """Copy norms of queries, keys and values; gains per head are those of a single head here."""
    if isinstance(theirs.qk_norm_q_scale, nn.Parameter):
        ledger.fill(ours.q_norm.gain, ledger.take(theirs.qk_norm_q_scale).view(-1)[order.features])
        ledger.fill(ours.k_norm.gain, ledger.take(theirs.qk_norm_k_scale).view(-1)[order.features])
    for own, norm, features in (
        (ours.q_norm, theirs.q_rmsnorm, order.features),
        (ours.k_norm, theirs.k_rmsnorm, order.features),
        (ours.value_mods, theirs.value_rmsnorm, slice(None)),
    ):
        if norm is not None:
            gains = own if own is not ours.value_mods else _find(ours, "ValueNorm").norm
            ledger.fill(gains.gain, 1 + ledger.take(norm.gamma).view(-1)[features])


def _copy_score_parts(theirs: nn.Module, ours: nn.Module, ledger: Ledger, order: Order) -> None:
    before, after = theirs.attend.pre_softmax_talking_heads, theirs.attend.post_softmax_talking_heads
    if before is not None:
        # Theirs adds the mix to the scores.
        mix = ledger.take(before.weight)[order.heads][:, order.heads, 0, 0].T
        ledger.fill(_find(ours, "TalkingHeads").score_mix, mix + torch.eye(len(mix), dtype=mix.dtype))
    if after is not None:
        mix = ledger.take(after.weight)[order.heads][:, order.heads, 0, 0].T
        ledger.fill(_find(ours, "TalkingHeads").weight_mix, mix)
    if theirs.attend.head_attn_sink is not None:
        ledger.fill(ours.normalizer.sinks, ledger.take(theirs.attend.head_attn_sink)[order.heads])


def _copy_positions(theirs: nn.Module, ours: nn.Module, ledger: Ledger, order: Order) -> None:
    """Copy the positions that each of their attentions owns."""
    if theirs.attend.cope is not None:
        table = ledger.take(theirs.attend.cope.pos_emb)[:, order.features].T
        # The length of unit vectors is part of our queries.
        ledger.fill(_find(ours, "Contextual").table, table / ours.q_norm.start if theirs.qk_norm else table)
    if theirs.data_dependent_alibi is not None:
        gate, forgetting = theirs.data_dependent_alibi.to_forget_gates[0], _find(ours, "Forgetting")
        ledger.fill(forgetting.to_gate.weight, ledger.take(gate.weight)[order.heads])
        ledger.fill(forgetting.gate_bias, ledger.take(gate.bias)[order.heads])
    if theirs.rel_proj_pos_bias is not None:
        curves, weights = _find(ours, "RelativeProjection"), theirs.rel_proj_pos_bias.to_distance_weights[0].weight
        rows = ledger.take(weights).unflatten(0, (theirs.heads, -1))[order.heads].flatten(0, 1)
        ledger.fill(curves.to_weights.weight, rows)
        ledger.fill(curves.curves, ledger.take(theirs.rel_proj_pos_bias.distance_bank))


def _copy_gates(theirs: nn.Module, ours: nn.Module, ledger: Ledger, order: Order) -> None:
    if theirs.head_scale:
        ledger.fill(_find(ours, "HeadScale").scale, ledger.take(theirs.head_scale_params)[0, order.heads])
    if theirs.to_v_head_gate is not None:
        gate = _find(ours, "HeadGate")
        ledger.fill(gate.to_gate.weight, ledger.take(theirs.to_v_head_gate.weight)[order.heads])
        ledger.fill(gate.gate_bias, ledger.take(theirs.to_v_head_gate.bias)[order.heads])
    if theirs.to_v_gate is None:
        return
    gate = _find(ours, "HeadGate" if theirs.gate_values_headwise else "ValueGate")
    source = theirs.to_v_gate
    if hasattr(source, "down"):
        ledger.fill(gate.to_rank.weight, ledger.take(source.down.weight))
        source = source.up
    rows = ledger.take(source.weight).unflatten(0, (theirs.heads, -1))[order.heads].flatten(0, 1)
    ledger.fill(gate.to_gate.weight, rows)
    # Theirs has no bias.
    ledger.fill(gate.gate_bias, torch.zeros_like(gate.gate_bias))
