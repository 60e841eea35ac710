"""Parts around the sublayers: placement of norms, residual, scale, links, shift and dropout."""

from typing import Any

from lightning_xt.commands.x_transformers.given_options import Given, make_class
from lightning_xt.commands.x_transformers.layout_parts import Order
from lightning_xt.commands.x_transformers.norm_parts import read_condition


def choose_placement(layers: Given) -> Any:
    """Return the placement of norms."""
    final, before = layers.get("pre_norm_has_final_norm"), layers.get("pre_norm")
    if layers.get("pre_and_post_norm"):
        if layers.get("sandwich_norm"):
            layers.miss("sandwich_norm", "norms have one placement, which pre_and_post_norm chooses")
        if not before:
            layers.miss("pre_norm", "norms have one placement, which pre_and_post_norm chooses")
        return "PreAndPostNorm"
    if layers.get("sandwich_norm"):
        if not final:
            layers.differ("pre_norm_has_final_norm", "SandwichNorm norms the output too")
        if layers.get("macaron"):
            layers.differ("macaron", "it halves the normed output; the norm comes after it there, and undoes it")
        return "SandwichNorm"
    if not before:
        return "PostNorm"
    return "PreNorm" if final else make_class("PreNorm", final_norm=False)


def choose_residual(layers: Given, *, causal: bool) -> Any:
    """Return the residual."""
    streams, iterations = layers.get("num_residual_streams"), layers.get("hyper_conn_sinkhorn_iters")
    kwargs = dict(layers.get("residual_fn_kwargs"))
    found: list[tuple[str, str, str | None, dict[str, Any]]] = []
    if layers.get("gated_multi_residual"):
        layers.miss("gated_multi_residual")
    if streams > 1:
        sizes = {"num_streams": streams, "sinkhorn_iterations": max(1, iterations)}
        found.append(("num_residual_streams", "ManifoldHyperConnection", _STREAMS, sizes))
    if layers.get("gate_residual"):
        found.append(
            (
                "gate_residual",
                "GRUGate",
                "it resets before its map, and one gate has a bias",
                {"bias_init": 0.0},
            )
        )
    if layers.get("orthog_residual"):
        found.append(("orthog_residual", "OrthogonalUpdate", "", {}))
    if layers.get("mv_split_residual"):
        if causal:
            layers.miss("mv_split_residual", "MeanVarianceSplit averages over later tokens too, so it is of encoders")
        else:
            starts = layers.get_entries("residual_fn_kwargs", float, "init_alpha", "init_beta")
            kwargs = {name: value for name, value in kwargs.items() if name not in starts}
            found.append(("mv_split_residual", "MeanVarianceSplit", None, starts))
    found += _choose_scaled(layers)
    if kwargs:
        layers.miss("residual_fn_kwargs", "the options of the residual here are other ones")
    for option, *_ in found[1:]:
        layers.miss(option, f"a stack has one residual, which {found[0][0]} chooses")
    if not found:
        return "Add"
    option, name, remark, options = found[0]
    return layers.choose(option, name, remark, **options)


def _choose_scaled(layers: Given) -> list[tuple[str, str, str | None, dict[str, Any]]]:
    learned, constant = layers.get("scale_residual"), layers.get("scale_residual_constant")
    depth_scale = layers.get("depth_scale_residual")
    if depth_scale is True:
        # It changes the start of weights only.
        layers.differ("depth_scale_residual", "weights start smaller in deeper networks by themselves", exact=True)
    elif depth_scale:
        layers.miss("depth_scale_residual", _FACTOR)
    if learned and not isinstance(learned, bool):
        layers.differ("scale_residual", f"a learned gain only; {_FACTOR}")
    if not learned and constant == 1:
        return []
    option = "scale_residual" if learned else "scale_residual_constant"
    return [(option, "ScaledAdd", None, {"constant": float(constant), "learned": bool(learned)})]


def choose_scale(layers: Given) -> Any:
    """Return the factor of each sublayer's output; None if there is none."""
    found = None
    if layers.get("use_layerscale"):
        found = make_class("LayerScale", init=float(layers.get("layerscale_init_value")))
    elif layers.get("use_adaptive_layerscale"):
        found = layers.choose("use_adaptive_layerscale", "AdaptiveLayerScale", "", **read_condition(layers))
    if found is not None and layers.get("sandwich_norm"):
        option = "use_layerscale" if layers.get("use_layerscale") else "use_adaptive_layerscale"
        layers.differ(option, "it scales the normed output; the norm comes after it there, and undoes it")
    dropped = layers.get("layer_dropout")
    if not dropped:
        return found
    if isinstance(dropped, tuple):
        layers.miss("layer_dropout", "StochasticDepth has one fraction, which grows over depth")
    elif found is not None:
        layers.miss("layer_dropout", "there is one scale, which layer scale is; StochasticDepth is another")
    else:
        remark = "the fraction grows over depth, for each row by itself; one for all layers and rows there"
        found = layers.choose("layer_dropout", "StochasticDepth", remark, exact=True, last_fraction=float(dropped))
    return found


def choose_links(layers: Given) -> list[Any]:
    """Return the connections across depth."""
    found = []
    if layers.get("attn_aggregated_residuals"):
        found.append(layers.choose("attn_aggregated_residuals", "DepthAttention", ""))
    if layers.get("integrate_layers"):
        layers.get("layer_integrate_use_softmax")
        found.append(layers.choose("integrate_layers", "LayerMixture", ""))
    if layers.get("unet_skips"):
        remark = "a map for each sublayer of the second half; for each layer there"
        found.append(layers.choose("unet_skips", "UNetSkips", remark))
    if layers.get("reinject_input"):
        gated = {"gated": True} if layers.get("learned_reinject_input_gate") else {}
        found.append(layers.choose("reinject_input", "Reinjection", "", **gated))
    if layers.get("softclamp_output"):
        found.append(make_class("OutputSoftCap", cap=float(layers.get("softclamp_output_value"))))
    return found


def choose_shift(layers: Given, order: Order, *, causal: bool) -> Any:
    """Return the shift of tokens; None if there is none."""
    shifts = layers.get("shift_tokens")
    if not shifts or (isinstance(shifts, int) and shifts < 0):
        return None
    if not causal:
        layers.differ("shift_tokens", "features come from earlier tokens only; from later ones too there")
    if not isinstance(shifts, tuple):
        return _make_shift(layers, shifts)
    width = len(order.block)
    parts = [shifts[at : at + width] for at in range(0, len(shifts), width)]
    alike = order.regular and len(shifts) == len(order.letters) and all(len(set(part)) == 1 for part in parts)
    if not alike:
        layers.miss("shift_tokens", "ShiftCycle has one shift a layer, for all of its sublayers")
        return None
    return make_class("ShiftCycle", shifts=[_make_shift(layers, part[0]) if part[0] > 0 else None for part in parts])


def _make_shift(layers: Given, distance: int) -> Any:
    dim = layers.get("dim")
    if dim % (distance + 1):
        layers.differ(
            "shift_tokens", f"{dim} features are not a multiple of {distance + 1}, so the parts differ by some"
        )
    return make_class("TokenShift", fraction=distance / (distance + 1), max_distance=distance)


_FACTOR = "no constant multiplies the output of a sublayer"
_STREAMS = (
    "starts and norms follow the paper, and each stream is read by itself; there every stream becomes the sum of all"
)
