"""Norms: of the stream, and of queries and keys."""

from typing import Any

from lightning_xt.commands.x_transformers.given_options import Given, make_class

LAYER_NORM_EPS, NORMALIZE_EPS = 1e-5, 1e-12
"""Numbers that the norms of x-transformers add; torch's `normalize` adds its own to no mean square."""
SETS = ("use_scalenorm", "use_rmsnorm", "use_simple_rmsnorm", "use_dynamic_tanh", "use_derf", "use_adaptive_layernorm",
        "use_adaptive_rmsnorm")  # fmt: skip
"""Options that choose the norm; the first counts."""


def make_layer_norm(**options: Any) -> Any:
    """Return the LayerNorm of x-transformers."""
    return make_class("LayerNorm", eps=LAYER_NORM_EPS, **options)


def make_rms_norm() -> Any:
    """Return the RMSNorm of x-transformers."""
    return make_class("RMSNorm", eps=NORMALIZE_EPS)


def choose_norm(layers: Given) -> Any:
    """Return the norm of the stream."""
    layers.get("norm_add_unit_offset")
    chosen = [option for option in SETS if layers.get(option)]
    for option in chosen[1:]:
        layers.miss(option, f"a network has one norm, which {chosen[0]} chooses")
    if not chosen:
        return make_layer_norm()
    option = chosen[0]
    if option == "use_dynamic_tanh":
        return layers.choose(option, "DynamicTanh", init_alpha=layers.get("dynamic_tanh_init_alpha"))
    if option == "use_derf":
        return layers.choose(option, "Derf")
    if option == "use_adaptive_layernorm":
        return layers.choose(option, "AdaptiveLayerNorm", "", exact=True, **read_condition(layers), eps=LAYER_NORM_EPS)
    if option == "use_adaptive_rmsnorm":
        return layers.choose(option, "AdaptiveRMSNorm", **read_condition(layers), eps=NORMALIZE_EPS)
    names = {"use_scalenorm": "ScaleNorm", "use_rmsnorm": "RMSNorm", "use_simple_rmsnorm": "SimpleRMSNorm"}
    return layers.choose(option, names[option], eps=NORMALIZE_EPS)


def read_condition(layers: Given) -> dict[str, Any]:
    """Return the options of a part that reads a condition."""
    layers.differ(
        "dim_condition",
        "a condition comes with the data: CustomData with inputs: [condition], or Inputs(condition=...)",
        exact=True,
    )
    width, expansion = layers.get("dim_condition"), layers.get("adaptive_condition_mlp_expansion")
    options: dict[str, Any] = {"condition_dim": layers.get("dim") if width is None else width}
    if layers.get("adaptive_condition_mlp"):
        layers.differ("adaptive_condition_mlp", "each norm has an MLP, with a bias; all share one there")
        options["mlp_expansion"] = float(expansion)
    return options


def choose_qk_norm(own: Given, dim_head: int) -> Any:
    """Return the norm of queries and keys; None if there is none."""
    groups, scale = own.get("qk_norm_groups"), own.get("qk_norm_scale")
    learned = own.get("qk_norm_dim_scale")
    if own.get("qk_norm"):
        if own.get("qk_rmsnorm"):
            own.miss("qk_rmsnorm", "queries and keys have one norm, which qk_norm chooses")
        if learned:
            own.differ("qk_norm_dim_scale", "all heads share the learned gains", exact=True)
        gain, start = ("feature", 1.0) if learned else ("fixed", float(scale))
        return make_class("UnitNorm", scale=start, gain=gain, groups=groups, eps=NORMALIZE_EPS)
    if not own.get("qk_rmsnorm"):
        return None
    own.differ("qk_rmsnorm", "all heads share the gains", exact=True)
    return make_rms_norm()


def choose_k_norm(own: Given) -> Any:
    """Return the norm of keys alone; None if there is none."""
    if not own.get("k_rmsnorm"):
        return None
    own.differ("k_rmsnorm", "all heads share the gains", exact=True)
    return make_rms_norm()
