"""Positions that all layers of x-transformers share, and constants, which are float32 here."""

import torch
from parity.attentions import find_order
from parity.ledger import Ledger
from torch import nn


def copy_constants(theirs: nn.Module, ours: nn.Module, ledger: Ledger) -> None:
    """Copy shared positions to each layer, and round their constants as ours are."""
    found: dict[str, list[nn.Module]] = {}
    for each in ours.modules():
        found.setdefault(type(each).__name__, []).append(each)
    if theirs.rotary_pos_emb is not None:
        _round_rotary(theirs.rotary_pos_emb, (found.get("Rotary") or found["XPos"])[0])
    if theirs.polar_pos_emb is not None:
        theirs.polar_pos_emb.inv_freq = _check(found["Polar"][0].frequencies, theirs.polar_pos_emb.inv_freq)
        for own in found["Polar"]:
            ledger.fill(own.phase, ledger.take(theirs.polar_pos_emb.learned_bias, shared=True))
    if theirs.rel_pos is not None:
        attention = next(each for each in theirs.modules() if type(each).__name__ == "Attention")
        _copy_bias(theirs.rel_pos, found, ledger, find_order(attention, None).heads)


def _copy_bias(theirs: nn.Module, found: dict[str, list[nn.Module]], ledger: Ledger, heads: torch.Tensor) -> None:
    """Copy the bias of all layers, in the order of our heads."""
    kind = type(theirs).__name__
    if kind == "AlibiPositionalBias":
        still = theirs.slopes.new_zeros(theirs.total_heads - theirs.heads, 1, 1)
        slopes = _check(found["ALiBi"][0].slopes.view(-1, 1, 1), torch.cat((theirs.slopes, still))[heads])
        theirs.slopes = slopes[heads.argsort()][: theirs.heads]
    elif kind == "RelativePositionBias":
        owner = next(each for each in found["SharedRelativeBias"] if each.table is not None)
        table = ledger.take(theirs.relative_attention_bias.weight) * theirs.scale
        ledger.fill(owner.table, table[:, heads])
    else:
        for own in found["DynamicBias"]:
            _copy_distance_mlp(theirs.mlp, own.mlp, ledger, heads)


def _check(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """Return our constants in float64; theirs must be equal but for rounding."""
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-6, atol=0.0)
    return ours.double()


def _round_rotary(theirs: nn.Module, ours: nn.Module) -> None:
    theirs.inv_freq = _check(ours.frequencies.double() * theirs.interpolation_factor, theirs.inv_freq)
    if theirs.scale is not None:
        theirs.scale = _check((ours.log_decays.double() * theirs.scale_base).exp(), theirs.scale)


def _copy_distance_mlp(theirs: nn.ModuleList, ours: nn.Module, ledger: Ledger, heads: torch.Tensor) -> None:
    """Copy the MLP of distances; its last bias is one number for all keys, which changes no weight."""
    first, *hidden, last = theirs
    ledger.fill(ours.slope, ledger.take(first[0].weight, shared=True)[:, 0])
    ledger.fill(ours.offset, ledger.take(first[0].bias, shared=True))
    for step, own in zip(hidden, ours.hidden, strict=True):
        ledger.fill(own.weight, ledger.take(step[0].weight, shared=True))
        ledger.fill(own.bias, ledger.take(step[0].bias, shared=True))
    for step, own in zip((first, *hidden), ours.norms, strict=True):
        norms = [each for each in step if type(each).__name__ == "LayerNorm"]
        for norm in norms:
            gain, bias = (norm.weight, norm.bias) if isinstance(norm, nn.LayerNorm) else (norm.gamma, None)
            ledger.fill(own.gain, ledger.take(gain, shared=True))
            ledger.fill(own.bias, torch.zeros_like(own.bias) if bias is None else ledger.take(bias, shared=True))
    ledger.fill(ours.to_bias.weight, ledger.take(last.weight, shared=True)[heads])
    ledger.skip(last.bias)
