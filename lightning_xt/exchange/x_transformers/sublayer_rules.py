"""Rules of sublayers: their norms, scale, branch and residual."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from lightning_xt.exchange.x_transformers.attention_rules import add_attention
from lightning_xt.exchange.x_transformers.norm_rules import add_layer_norm, add_norm
from lightning_xt.exchange.x_transformers.rule_builder import RuleBuilder
from lightning_xt.exchange.x_transformers.stack_options import StackOptions
from lightning_xt.models.sublayer import Sublayer, Tokenwise
from lightning_xt.nn.activations.solu import SoLU
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.attention.chosen_mixer import ChosenMixer
from lightning_xt.nn.feedforward.chosen_feed_forward import ChosenFeedForward
from lightning_xt.nn.feedforward.deep_embed import DeepEmbed
from lightning_xt.nn.feedforward.glu import GLU
from lightning_xt.nn.feedforward.mlp import MLP
from lightning_xt.nn.residuals.mean_variance_split import MeanVarianceSplit
from lightning_xt.nn.residuals.scaled_add import ScaledAdd
from lightning_xt.nn.scales.layer_scale import LayerScale


def add_sublayer(
    rules: RuleBuilder, ours: Sublayer, prefix: str, index: int, stack: StackOptions, options: Mapping[str, Any]
) -> None:
    """Add the rules of one sublayer.

    Args:
        rules: where they are added.
        ours: the sublayer.
        prefix: prefix of its tensors there.
        index: its index there.
        stack: options of the network.
        options: options of the sublayer.
    """
    placed = ours.placement
    for number, norm in enumerate((placed.norm_before, placed.norm_after, placed.norm_stream)):
        if norm is not None:
            add_norm(rules, norm, f"{prefix}0.{number}.", stack)
    _add_residual(rules, ours.residual, f"{prefix}2.")
    inner = f"{prefix}1."
    if isinstance(ours.scale, LayerScale):
        rules.add_offset(ours.scale.gain, f"{inner}gamma", stack.unit_offset)
        inner += "fn."
    if stack.is_shifted(index):
        inner += "fn."
    branch: nn.Module = ours.branch
    if isinstance(branch, Tokenwise):
        # Each feedforward of a Macaron is wrapped in its factor.
        inner += "fn." if stack.layers["macaron"] else ""
        _add_feedforward(rules, find_feedforward(branch), f"{inner}ff.")
        return
    while isinstance(branch, ChosenMixer):
        branch = branch.mixer
    if isinstance(branch, Attention):
        add_attention(rules, branch, inner, options)


def find_feedforward(branch: Tokenwise) -> nn.Module:
    """Return the feedforward that does the work, without those around it."""
    found: nn.Module = branch.feedforward
    while isinstance(found, ChosenFeedForward | DeepEmbed):
        found = found.feedforward
    return found


def _add_feedforward(rules: RuleBuilder, ours: nn.Module, prefix: str) -> None:
    last = f"{prefix}2."
    if isinstance(ours, MLP):
        _add_linear(rules, ours.to_hidden, f"{prefix}0.0.")
        if isinstance(ours.activation, SoLU) and ours.hidden_norm is not None:
            add_layer_norm(rules, ours.hidden_norm, f"{prefix}0.{1 if ours.hidden_cap is None else 2}.norm.")
            _add_linear(rules, ours.to_out, last)
            return
    elif isinstance(ours, GLU):
        _add_gated(rules, ours, f"{prefix}0.")
    else:
        return
    if ours.hidden_norm is not None:
        add_layer_norm(rules, ours.hidden_norm, f"{prefix}1.")
        last = f"{prefix}3."
    _add_linear(rules, ours.to_out, last)


def _add_gated(rules: RuleBuilder, ours: GLU, prefix: str) -> None:
    """Add the rules of the two maps in one of a gate, which is the first half here, and the second there."""
    both = len(ours.to_hidden.weight)
    parameters = {"weight": ours.to_hidden.weight, "bias": ours.to_hidden.bias}
    for name, parameter in parameters.items():
        if parameter is None:
            # Theirs has one, whatever the options say.
            rules.fix(f"{prefix}proj.{name}", torch.zeros(both))
        else:
            own = {f"{prefix}proj.{name}": tuple(parameter.shape)}
            rules.compute(parameter, own, lambda given: given.roll(both // 2, dims=0))
    if ours.gain is not None:
        rules.copy(ours.gain, f"{prefix}mult_bias")


def _add_linear(rules: RuleBuilder, ours: nn.Linear, prefix: str) -> None:
    rules.copy(ours.weight, f"{prefix}weight")
    if ours.bias is not None:
        rules.copy(ours.bias, f"{prefix}bias")


def _add_residual(rules: RuleBuilder, ours: nn.Module, prefix: str) -> None:
    if isinstance(ours, MeanVarianceSplit):
        rules.copy(ours.alpha, f"{prefix}alpha")
        rules.copy(ours.beta, f"{prefix}beta")
    elif isinstance(ours, ScaledAdd) and ours.gain is not None:
        rules.copy(ours.gain, f"{prefix}residual_scale")
