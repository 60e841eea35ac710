"""Rules of positions: those that an attention owns, and those that all layers share there."""

import math

import torch
from torch import nn

from lightning_xt.exchange.x_transformers.head_order import HeadOrder, find_head_order
from lightning_xt.exchange.x_transformers.rule_builder import RuleBuilder
from lightning_xt.exchange.x_transformers.stack_options import StackOptions
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.normalizers.softmax import Softmax
from lightning_xt.nn.norms.layer_norm import LayerNorm
from lightning_xt.nn.norms.unit_norm import UnitNorm
from lightning_xt.nn.positions.contextual import Contextual
from lightning_xt.nn.positions.dynamic_bias import DynamicBias
from lightning_xt.nn.positions.forgetting import Forgetting
from lightning_xt.nn.positions.polar import Polar
from lightning_xt.nn.positions.relative_projection import RelativeProjection
from lightning_xt.nn.positions.rotary import Rotary
from lightning_xt.nn.positions.shared_relative_bias import SharedRelativeBias
from lightning_xt.nn.positions.xpos import XPos

ROUNDING = 1e-6
"""Largest relative difference between constants that both sides compute in float32."""


def add_own_positions(rules: RuleBuilder, ours: Attention, prefix: str, order: HeadOrder) -> None:
    """Add the rules of the positions that each attention owns there."""
    for part in () if ours.position is None else ours.position.modules():
        if isinstance(part, Contextual):
            # The length of unit vectors is part of our queries.
            start = ours.q_norm.start if isinstance(ours.q_norm, UnitNorm) else 1.0
            table = {f"{prefix}attend.cope.pos_emb": tuple(part.table.shape)[::-1]}
            rules.compute(part.table, table, lambda given, start=start: given[:, order.features].mT / start)
        elif isinstance(part, Forgetting):
            name, weight = f"{prefix}data_dependent_alibi.to_forget_gates.0.", part.to_gate.weight
            rules.compute(weight, {f"{name}weight": tuple(weight.shape)}, order.sort_rows)
            rules.compute(part.gate_bias, {f"{name}bias": tuple(part.gate_bias.shape)}, order.sort_rows)
        elif isinstance(part, RelativeProjection):
            name, weight = f"{prefix}rel_proj_pos_bias.", part.to_weights.weight
            rules.compute(weight, {f"{name}to_distance_weights.0.weight": tuple(weight.shape)}, order.sort_rows)
            rules.fix(f"{name}to_distance_weights.0.bias", torch.zeros(len(weight)))
            rules.copy(part.curves, f"{name}distance_bank")


def add_shared_positions(rules: RuleBuilder, ours: nn.Module, prefix: str, options: StackOptions) -> None:
    """Add the rules of the positions that all layers of a network share there."""
    # All rotations of a network have the same angles.
    if (rotation := next((each for each in ours.modules() if isinstance(each, Rotary | XPos)), None)) is not None:
        _add_rotation(rules, rotation, f"{prefix}rotary_pos_emb.", options)
    polar = [each for each in ours.modules() if isinstance(each, Polar)]
    for each in polar:
        rules.copy(each.phase, f"{prefix}polar_pos_emb.learned_bias")
    if polar:
        _fix_constant(rules, f"{prefix}polar_pos_emb.inv_freq", polar[0].frequencies)
    for attention in (each for each in ours.modules() if isinstance(each, Attention)):
        for part in () if attention.position is None else attention.position.modules():
            if isinstance(part, SharedRelativeBias) and part.table is not None:
                _add_table(rules, part.table, attention, prefix)
            elif isinstance(part, DynamicBias):
                _add_distance_mlp(rules, part, attention, f"{prefix}rel_pos.mlp.")


def _add_rotation(rules: RuleBuilder, ours: Rotary | XPos, prefix: str, options: StackOptions) -> None:
    factor = options.layers["rotary_interpolation_factor"]
    _fix_constant(rules, f"{prefix}inv_freq", ours.frequencies.double() * factor)
    if isinstance(ours, XPos):
        decays = (ours.log_decays.double() * options.layers["rotary_xpos_scale_base"]).exp()
        _fix_constant(rules, f"{prefix}scale", decays)


def _fix_constant(rules: RuleBuilder, theirs: str, value: torch.Tensor) -> None:
    rules.fix(theirs, value, ROUNDING, written=False)


def _add_table(rules: RuleBuilder, ours: nn.Parameter, attention: Attention, prefix: str) -> None:
    scale, heads = attention.shape.dim_head**0.5, find_head_order(attention).heads
    name = f"{prefix}rel_pos.relative_attention_bias.weight"
    rules.compute(ours, {name: tuple(ours.shape)}, lambda given: given[:, heads] * scale)


def _add_distance_mlp(rules: RuleBuilder, part: DynamicBias, attention: Attention, prefix: str) -> None:
    """Add the rules of the MLP of distances, which all layers share there."""
    ours, heads = part.mlp, find_head_order(attention).heads
    width, last = len(ours.slope), len(ours.hidden) + 1
    rules.compute(ours.slope, {f"{prefix}0.0.weight": (width, 1)}, lambda given: given[:, 0])
    rules.copy(ours.offset, f"{prefix}0.0.bias")
    for number, own in enumerate(ours.hidden, start=1):
        for name, parameter in own.named_parameters():
            rules.copy(parameter, f"{prefix}{number}.0.{name}")
    for number, norm in enumerate(ours.norms):
        if isinstance(norm, LayerNorm) and norm.bias is not None:
            # The first norm there is another class, without a bias.
            rules.copy(norm.gain, f"{prefix}{number}.1.{'weight' if number else 'gamma'}")
            if number:
                rules.copy(norm.bias, f"{prefix}{number}.1.bias")
            else:
                rules.fill_zeros(norm.bias)
    weight = ours.to_bias.weight
    rules.compute(weight, {f"{prefix}{last}.weight": tuple(weight.shape)}, lambda given: given[heads])
    # One number for all keys changes no weight of a softmax over them alone.
    alone = isinstance(attention.normalizer, Softmax) and attention.memory is None and not len(attention.score_mods)
    rules.fix(f"{prefix}{last}.bias", torch.zeros(len(weight)), math.inf if alone else 0.0)
