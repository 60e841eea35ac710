"""Feedforward, from the options with the prefix ff_."""

from typing import Any

from lightning_xt.commands.x_transformers.expression import ACTIVATIONS, Call
from lightning_xt.commands.x_transformers.given_options import Given, make_class
from lightning_xt.commands.x_transformers.norm_parts import make_layer_norm

CLASSES = {"GELU": "GEGLU", "SiLU": "SwiGLU", "ReLU": "ReGLU"}
"""Gated feedforward of an activation; of others it is GatedMLP."""


def build_feedforward(own: Given, dim: int, *, deep_embed: bool) -> Any:
    """Return the feedforward.

    Args:
        own: options of the feedforward.
        dim: width of the stream.
        deep_embed: True if tokens multiply its output.
    """
    activation = _choose_activation(own)
    bias = not own.get("no_bias")
    options: dict[str, Any] = {"hidden_dim": int(dim * own.get("mult")), "bias": bias}
    options["dropout"] = float(own.get("dropout"))
    norm = own.get("post_act_ln")
    gated = own.get("glu")
    if activation == "SoLU":
        if gated:
            own.differ("solu", "the gate has no LayerNorm; it has one there")
        elif norm:
            own.differ("post_act_ln", "the LayerNorm of SoLU is the only one")
        norm = norm or not gated
    options["hidden_norm"] = make_layer_norm() if norm else None
    if gated:
        found = _build_gated(own, activation, options)
    else:
        for option in ("glu_mult_bias", "glu_softclamp", "glu_gate_softclamp_value", "glu_up_softclamp_value"):
            # Without a gate x-transformers ignores them.
            own.get(option)
        cap = own.get("softclamp_value")
        found = make_class("MLP", activation=activation, hidden_cap=None if cap is None else float(cap), **options)
    for option in ("output_proj_depth", "sublayer_dropout", "zero_init_output"):
        # The layers give it, or the stack has read it.
        own.get(option)
    own.miss_unread()
    return make_class("DeepEmbed", feedforward=found) if deep_embed else found


def _build_gated(own: Given, activation: str, options: dict[str, Any]) -> Any:
    if not options["bias"]:
        own.differ(
            "no_bias", "neither map of a gated feedforward has a bias; the first keeps its own there", exact=True
        )
    if own.has("softclamp_value"):
        own.get("softclamp_value")
    options["hidden_gain"] = own.get("glu_mult_bias")
    caps = own.get("glu_gate_softclamp_value"), own.get("glu_up_softclamp_value")
    if own.get("glu_softclamp"):
        if activation == "SiLU":
            return make_class("SiTUGLU", **options, gate_cap=float(caps[0]), gated_cap=float(caps[1]))
        own.miss("glu_softclamp", "SiTUGLU bounds a gate with SiLU only: set ff_swish too")
    if activation in CLASSES:
        return make_class(CLASSES[activation], **options)
    return make_class("GatedMLP", activation=activation, **options)


def _choose_activation(own: Given) -> str:
    custom = own.get("custom_activation")
    chosen = [name for option, name in _SETS.items() if own.get(option)]
    if isinstance(custom, Call):
        return ACTIVATIONS[custom.name]
    if custom is not None:
        own.miss("custom_activation", f"it must be one of {', '.join(ACTIVATIONS)}, such as nn.ReLU()")
    return chosen[0] if chosen else "GELU"


_SETS = {"relu_squared": "ReLUSquared", "solu": "SoLU", "swish": "SiLU"}
