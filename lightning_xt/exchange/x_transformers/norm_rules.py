"""Rules of norms."""

from collections.abc import Callable, Mapping
from typing import cast

from torch import Tensor, nn

from lightning_xt.exchange.tensor_rules import TensorMisfitError
from lightning_xt.exchange.x_transformers.rule_builder import RuleBuilder
from lightning_xt.exchange.x_transformers.stack_options import StackOptions
from lightning_xt.nn.norms.adaptive_layer_norm import AdaptiveLayerNorm
from lightning_xt.nn.norms.adaptive_rms_norm import AdaptiveRMSNorm
from lightning_xt.nn.norms.derf import Derf
from lightning_xt.nn.norms.dynamic_tanh import DynamicTanh
from lightning_xt.nn.norms.layer_norm import LayerNorm
from lightning_xt.nn.norms.rms_norm import RMSNorm
from lightning_xt.nn.norms.scale_norm import ScaleNorm
from lightning_xt.nn.norms.simple_rms_norm import SimpleRMSNorm


def add_norm(rules: RuleBuilder, ours: nn.Module, prefix: str, options: StackOptions) -> None:
    """Add the rules of a norm of the stream; TensorMisfitError if it has no counterpart."""
    kind = type(ours)
    if kind not in _MAKERS:
        raise TensorMisfitError(f"the norm {kind.__name__} has no rule for the weights of x-transformers")
    _MAKERS[kind](rules, ours, prefix, options)


def add_layer_norm(rules: RuleBuilder, ours: nn.Module, prefix: str) -> None:
    """Add the rule of a LayerNorm apart from the stream, whose gain has no offset."""
    rules.copy(cast(LayerNorm, ours).gain, f"{prefix}gamma")


def share_gains(name: str, features: Tensor | slice = slice(None)) -> Callable[[Tensor], Tensor]:
    """Return the function from gains of each head to the one vector of gains that all heads share here."""

    def choose(gains: Tensor) -> Tensor:
        rows = gains.flatten(0, -2)
        if not bool((rows == rows[0]).all()):
            raise TensorMisfitError(f"{name} differs between heads, but heads share the gains of a norm here")
        return rows[0][features]

    return choose


def _add_layer(rules: RuleBuilder, ours: LayerNorm, prefix: str, options: StackOptions) -> None:
    rules.add_offset(ours.gain, f"{prefix}gamma", options.unit_offset)


def _add_rms(rules: RuleBuilder, ours: RMSNorm, prefix: str, options: StackOptions) -> None:
    rules.add_offset(ours.gain, f"{prefix}g", options.unit_offset)


def _add_length(rules: RuleBuilder, ours: ScaleNorm, prefix: str, options: StackOptions) -> None:
    rules.add_offset(ours.length, f"{prefix}g", options.unit_offset, options.layers["dim"] ** 0.5)


def _add_tanh(rules: RuleBuilder, ours: DynamicTanh, prefix: str, options: StackOptions) -> None:
    start = options.unit_offset * options.layers["dynamic_tanh_init_alpha"]
    rules.compute(ours.alpha, {f"{prefix}pre_tanh_scale": ()}, lambda given: given.view(1) + start)
    _add_affine(rules, ours, prefix, options)


def _add_derf(rules: RuleBuilder, ours: Derf, prefix: str, options: StackOptions) -> None:
    offset = options.unit_offset
    rules.compute(ours.alpha, {f"{prefix}alpha": ()}, lambda given: given.view(1) + offset)
    rules.compute(ours.offset, {f"{prefix}s": ()}, lambda given: given.view(1))
    _add_affine(rules, ours, prefix, options)


def _add_affine(rules: RuleBuilder, ours: DynamicTanh | Derf, prefix: str, options: StackOptions) -> None:
    rules.add_offset(ours.gain, f"{prefix}gamma", options.unit_offset)
    rules.copy(ours.shift, f"{prefix}beta")


def _add_adaptive(
    rules: RuleBuilder,
    ours: AdaptiveLayerNorm | AdaptiveRMSNorm,
    prefix: str,
    options: StackOptions,
) -> None:
    rules.compute(ours.to_gain, {f"{prefix}to_gamma.weight": tuple(ours.to_gain.shape)[::-1]}, lambda given: given.mT)
    if isinstance(ours, AdaptiveLayerNorm):
        rules.fill_zeros(ours.to_shift)


def _add_nothing(rules: RuleBuilder, ours: SimpleRMSNorm, prefix: str, options: StackOptions) -> None:
    """Add no rule: the norm has no weights."""


_MAKERS: Mapping[type, Callable[..., None]] = {
    LayerNorm: _add_layer,
    RMSNorm: _add_rms,
    ScaleNorm: _add_length,
    DynamicTanh: _add_tanh,
    Derf: _add_derf,
    AdaptiveLayerNorm: _add_adaptive,
    AdaptiveRMSNorm: _add_adaptive,
    SimpleRMSNorm: _add_nothing,
}
