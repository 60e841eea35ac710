"""Copies of norms, feedforwards, residuals and scales."""

import torch
from parity.ledger import Ledger
from torch import Tensor, nn


def copy_norm(theirs: nn.Module, ours: nn.Module, ledger: Ledger, factor: float = 1.0) -> None:
    """Copy a norm; a factor on its output becomes part of the gain."""
    kind = type(theirs).__name__
    assert kind == type(ours).__name__, (kind, type(ours).__name__)
    if kind in ("LayerNorm", "RMSNorm"):
        gain = theirs.gamma if kind == "LayerNorm" else theirs.g
        ledger.fill(ours.gain, (ledger.take(gain) + float(theirs.unit_offset)) * factor)
    elif kind == "ScaleNorm":
        ledger.fill(ours.length, (ledger.take(theirs.g) + float(theirs.unit_offset)) * theirs.scale * factor)
    elif kind == "DynamicTanh":
        ledger.fill(ours.alpha, (ledger.take(theirs.pre_tanh_scale) + theirs.pre_tanh_scale_offset).view(1))
        ledger.fill(ours.gain, ledger.take(theirs.gamma) + theirs.gamma_offset)
        ledger.fill(ours.shift, ledger.take(theirs.beta))
    elif kind == "Derf":
        ledger.fill(ours.alpha, (ledger.take(theirs.alpha) + theirs.scale_offset).view(1))
        ledger.fill(ours.offset, ledger.take(theirs.s).view(1))
        ledger.fill(ours.gain, ledger.take(theirs.gamma) + theirs.scale_offset)
        ledger.fill(ours.shift, ledger.take(theirs.beta))
    elif kind.startswith("Adaptive"):
        ledger.fill(ours.to_gain, ledger.take(theirs.to_gamma.weight).T)
        if kind == "AdaptiveLayerNorm":
            ledger.fill(ours.to_shift, torch.zeros_like(ours.to_shift))
    else:
        assert kind == "SimpleRMSNorm", kind


def copy_linear(theirs: nn.Linear, ours: nn.Linear, ledger: Ledger, order: Tensor | slice = slice(None)) -> None:
    """Copy a linear map, its outputs in another order."""
    ledger.fill(ours.weight, ledger.take(theirs.weight)[order])
    if theirs.bias is not None and ours.bias is not None:
        ledger.fill(ours.bias, ledger.take(theirs.bias)[order])


def copy_feedforward(theirs: nn.Module, ours: nn.Module, ledger: Ledger) -> None:
    """Copy a feedforward with or without a gate."""
    first, *between = theirs.ff
    linears = [each for each in between if isinstance(each, nn.Linear)]
    norms = [each for each in between if type(each).__name__ == "LayerNorm"]
    if type(first).__name__ == "GLU":
        # The gate is the first half here.
        half = len(first.proj.weight) // 2
        copy_linear(first.proj, ours.to_hidden, ledger, torch.arange(2 * half).roll(half))
        if isinstance(first.mult_bias, nn.Parameter):
            ledger.fill(ours.gain, ledger.take(first.mult_bias))
    else:
        copy_linear(first[0], ours.to_hidden, ledger)
        norms += [each.norm for each in first if type(each).__name__ == "SoLU"]
    for norm in norms:
        copy_norm(norm, ours.hidden_norm, ledger)
    copy_linear(linears[0], ours.to_out, ledger)


def copy_residual(theirs: nn.Module, ours: nn.Module, ledger: Ledger) -> None:
    """Copy the connection of a sublayer to the stream."""
    kind = type(theirs).__name__
    if kind == "MVSplitResidualUpdate":
        ledger.fill(ours.alpha, ledger.take(theirs.alpha))
        ledger.fill(ours.beta, ledger.take(theirs.beta))
    elif kind == "GRUGating":
        copy_gru(theirs.gru, ours, ledger)
    else:
        assert kind in ("Residual", "OrthogonalResidualUpdate"), kind
        if theirs.residual_scale is not None:
            ledger.fill(ours.gain, ledger.take(theirs.residual_scale))


def copy_gru(theirs: nn.GRUCell, ours: nn.Module, ledger: Ledger) -> None:
    """Copy the maps of a recurrent unit; only its update gate has a bias here, so theirs must be zero elsewhere."""
    reset, update, candidate = ledger.take(theirs.weight_hh).chunk(3)
    ledger.fill(ours.from_out.weight, ledger.take(theirs.weight_ih))
    ledger.fill(ours.from_stream.weight, torch.cat((reset, update)))
    ledger.fill(ours.from_reset.weight, candidate)
    biases = ledger.take(theirs.bias_ih) + ledger.take(theirs.bias_hh)
    ledger.fill(ours.update_bias, -biases.chunk(3)[1])
