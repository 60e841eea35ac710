"""Rules of the gates and scales of gathered values."""

from collections.abc import Mapping
from typing import Any

from lightning_xt.exchange.x_transformers.head_order import HeadOrder
from lightning_xt.exchange.x_transformers.rule_builder import RuleBuilder
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.output_mods.head_gate import HeadGate
from lightning_xt.nn.output_mods.head_scale import HeadScale
from lightning_xt.nn.output_mods.value_gate import ValueGate


def add_gates(rules: RuleBuilder, ours: Attention, prefix: str, order: HeadOrder, options: Mapping[str, Any]) -> None:
    """Add the rules of the output mods of an attention with these options."""
    heads = ours.shape.heads
    biased = options["gate_value_heads"]
    for mod in ours.output_mods:
        if isinstance(mod, HeadScale):
            rules.compute(mod.scale, {f"{prefix}head_scale_params": (1, heads, 1, 1)}, lambda own: own[0, order.heads])
        elif isinstance(mod, HeadGate) and biased:
            # The gate with a bias comes first; another one has none.
            biased, name = False, f"{prefix}to_v_head_gate."
            rules.compute(mod.to_gate.weight, {f"{name}weight": tuple(mod.to_gate.weight.shape)}, order.sort_rows)
            rules.compute(mod.gate_bias, {f"{name}bias": (heads,)}, order.sort_rows)
        elif isinstance(mod, HeadGate | ValueGate):
            _add_gate(rules, mod, f"{prefix}to_v_gate.", order)


def _add_gate(rules: RuleBuilder, ours: HeadGate | ValueGate, prefix: str, order: HeadOrder) -> None:
    """Add the rules of a gate that has no bias there."""
    name = f"{prefix}weight"
    if isinstance(ours, ValueGate) and ours.to_rank is not None:
        rules.copy(ours.to_rank.weight, f"{prefix}down.weight")
        name = f"{prefix}up.weight"
    rules.compute(ours.to_gate.weight, {name: tuple(ours.to_gate.weight.shape)}, order.sort_rows)
    rules.fill_zeros(ours.gate_bias)
