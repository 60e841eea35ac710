"""Positions of attention: rotations, biases and what reads scores."""

from typing import Any

from lightning_xt.commands.x_transformers.given_options import Given, format_value, make_class
from lightning_xt.commands.x_transformers.norm_parts import make_layer_norm
from lightning_xt.nn.positions.alibi import compute_slopes
from lightning_xt.system.messages import UserError

COUNTED = ("num_mem_kv", "add_zero_kv", "cog_signed")
"""Options that change the scores which positions by content count there."""

LARGEST_RESCALE = 1_000_000


def choose_position(layers: Given, own: Given, *, causal: bool) -> Any:
    """Return the position of self-attention, several of them combined; None if there is none."""
    found = [
        _choose_rotation(layers, own, causal=causal),
        _choose_bias(layers, own),
        *_choose_own(layers, own, causal=causal),
    ]
    found = [each for each in found if each is not None]
    if len(found) > 1:
        return make_class("Combined", positions=found)
    return found[0] if found else None


def disables_absolute(layers: Given) -> bool:
    """Return True if these layers have no absolute positions by default."""
    chosen = layers.get("disable_abs_pos_emb")
    if chosen is not None:
        return bool(chosen)
    return any(layers.get(each) for each in ("rel_pos_bias", "rotary_pos_emb", "rotary_xpos", "polar_pos_emb"))


def _choose_rotation(layers: Given, own: Given, *, causal: bool) -> Any:
    if layers.get("rotary_pos_emb") or layers.get("rotary_xpos"):
        if layers.get("polar_pos_emb"):
            layers.miss("polar_pos_emb", "x-transformers refuses it next to rotary_pos_emb; choose one")
        width = layers.get("rotary_emb_dim")
        width = own.get("dim_head") // 2 if width is None else width
        scaling = _choose_scaling(layers)
        if own.get("qk_norm_groups") > 1 and own.get("qk_norm"):
            own.differ("qk_norm_groups", "other features are rotated together: the halves of the rotated ones")
        if layers.get("rotary_xpos"):
            return _choose_xpos(layers, own, width, causal=causal)
        base = 10_000.0
        factor = layers.get("rotary_base_rescale_factor")
        if not 0 < factor <= LARGEST_RESCALE:
            raise UserError(
                f"from-xt: rotary_base_rescale_factor is {factor}, which must be above 0 and at most {LARGEST_RESCALE}"
            )
        if factor != 1 and width > 2:
            base *= factor ** (width / (width - 2))
        # A latent brings the features that are rotated.
        latent = own.get("use_latent_kv")
        options: dict[str, Any] = {} if latent else {"rotary_dim": _make_even(layers, width)}
        heads = own if own.has("rotate_num_heads") else layers
        if heads.has("rotate_num_heads") and not latent:
            options["rotated_heads"] = heads.get("rotate_num_heads")
        if base != 10_000.0:
            options["base"] = base
        return make_class("Rotary", **options, **scaling)
    if not layers.get("polar_pos_emb"):
        return None
    if own.get("qk_norm"):
        own.differ("qk_norm", "Polar reads vectors of qk_norm with their scale, unit vectors there")
    start = "uniform" if layers.get("polar_bias_uniform_init") else "zero"
    layers.differ("polar_pos_emb", "each layer has phases; all share one set there", exact=True)
    return make_class("Polar", phase_init=start)


def _choose_scaling(layers: Given) -> dict[str, Any]:
    if not layers.has("rotary_interpolation_factor"):
        return {}
    return {"rope_scaling": make_class("LinearScaling", factor=float(layers.get("rotary_interpolation_factor")))}


def _choose_xpos(layers: Given, own: Given, width: int, *, causal: bool) -> Any:
    scale_base = float(layers.get("rotary_xpos_scale_base"))
    if not causal:
        layers.miss("rotary_xpos", "it serves causal attention only, there too; here Rotary stands for it")
        return make_class("Rotary", rotary_dim=_make_even(layers, width))
    if width != own.get("dim_head"):
        layers.differ("rotary_xpos", f"XPos rotates all {own.get('dim_head')} features of a head; {width} there")
    if own.get("num_mem_kv") or own.get("l2_distance"):
        layers.differ("rotary_xpos", "decays count from the first token, from the middle of the row there")
    for option in ("rotary_interpolation_factor", "rotary_base_rescale_factor"):
        if layers.has(option):
            layers.miss(option, "XPos has a fixed base and no scaling")
    return make_class("XPos", scale_base=scale_base)


def _make_even(layers: Given, width: int) -> int:
    if width % 2 or width < 2:
        layers.differ("rotary_emb_dim", f"{width} is odd, so one more feature is rotated, at other frequencies")
        return width + width % 2 or 2
    return width


def _choose_bias(layers: Given, own: Given) -> Any:
    kwargs = layers.get("rel_pos_kwargs")
    if layers.get("rel_pos_bias"):
        found = make_class(
            "SharedRelativeBias",
            num_buckets=layers.get("rel_pos_num_buckets"),
            max_distance=layers.get("rel_pos_max_distance"),
        )
    elif layers.get("dynamic_pos_bias"):
        layers.differ(
            "dynamic_pos_bias",
            "DynamicBias; each layer has an MLP, whose last map has no bias; all layers share one there",
            exact=True,
        )
        options: dict[str, Any] = {"hidden_dim": max(1, layers.get("dim") // 4)}
        options["hidden_layers"] = layers.get("dynamic_pos_bias_mlp_depth")
        options["log_distance"] = layers.get("dynamic_pos_bias_log_distance")
        if layers.get("dynamic_pos_bias_norm"):
            layers.differ("dynamic_pos_bias_norm", "every norm has a bias; the first has none there", exact=True)
            options["norm"] = make_layer_norm(bias=True)
        found = make_class("DynamicBias", **options)
    elif layers.get("alibi_pos_bias"):
        given = layers.get_entries("rel_pos_kwargs", tuple, "slopes")
        kwargs = {name: value for name, value in kwargs.items() if name not in given}
        options = _choose_slopes(layers, own, given.get("slopes"))
        found = make_class("ALiBi", **options)
    else:
        found = None
    if kwargs:
        layers.miss("rel_pos_kwargs", "only the slopes of ALiBi are an option here")
    return found


def _choose_slopes(layers: Given, own: Given, slopes: Any) -> dict[str, Any]:
    """Return the options of ALiBi; grouped heads have slopes in the order here, where those of a group are adjacent."""
    heads, groups = count_heads(layers, own)
    biased = layers.get("alibi_num_heads") if layers.has("alibi_num_heads") else heads
    if not 1 <= biased <= heads:
        raise UserError(f"from-xt: alibi_num_heads is {biased}, which must be from 1 to the heads ({heads})")
    if slopes is not None:
        _check_slopes(slopes, biased if layers.has("alibi_num_heads") else None, heads)
    if not 1 < groups < heads:
        options = {"biased_heads": biased} if layers.has("alibi_num_heads") else {}
        return options if slopes is None else {**options, "slopes": list(slopes)}
    given = list(compute_slopes(biased) if slopes is None else slopes)
    given += [0.0] * (heads - len(given))
    return {"slopes": [given[place] for group in range(groups) for place in range(group, heads, groups)]}


def _check_slopes(slopes: tuple[Any, ...], biased: int | None, heads: int) -> None:
    """Raise a UserError unless slopes are numbers, one for each biased head; None = any number of heads."""
    if any(not isinstance(each, int | float) or isinstance(each, bool) for each in slopes):
        raise UserError(f"from-xt: rel_pos_kwargs has slopes {format_value(slopes)}, which must be numbers")
    if not 1 <= len(slopes) <= heads or biased not in (None, len(slopes)):
        wanted = f"1 to {heads}, at most one for each head" if biased is None else f"{biased}, as alibi_num_heads says"
        raise UserError(f"from-xt: rel_pos_kwargs has {len(slopes)} slopes, which must be {wanted}")


def count_heads(layers: Given, own: Given) -> tuple[int, int]:
    """Return the numbers of query heads and of key/value heads."""
    heads = own.get("heads") if own.is_own("heads") else layers.get("heads")
    groups = 1 if own.get("one_kv_head") else own.get("kv_heads")
    return heads, heads if groups is None else groups


def adds_bias(layers: Given, own: Given) -> bool:
    """Return True if a position adds a bias to the scores of self-attention."""
    shared = any(layers.get(each) for each in ("alibi_pos_bias", "rel_pos_bias", "dynamic_pos_bias"))
    return shared or any(own.get(each) for each in ("data_dependent_alibi", "use_rel_proj_pos_bias"))


def _choose_own(layers: Given, own: Given, *, causal: bool) -> list[Any]:
    """Return the positions that belong to attention itself."""
    found = []
    if not own.get("data_dependent_alibi_per_row"):
        own.get("data_dependent_alibi_per_row_dim_head")
    if own.get("data_dependent_alibi"):
        options = own.get("data_dependent_alibi_kwargs")
        start = {"bias_init": 5.0} | own.get_entries("data_dependent_alibi_kwargs", float, "bias_init")
        if options.keys() - start.keys():
            own.miss("data_dependent_alibi_kwargs", "bias_init is the only one that is an option here")
        if own.get("data_dependent_alibi_per_row"):
            own.miss("data_dependent_alibi_per_row")
        elif not causal:
            own.miss("data_dependent_alibi", "Forgetting sums over the past, so it serves causal attention only")
        else:
            found.append(make_class("Forgetting", **start))
    if own.get("use_rel_proj_pos_bias"):
        curves, distances = own.get("rel_proj_num_distance_basis"), own.get("rel_proj_max_dist")
        more = "" if causal else ", and there are curves for later keys"
        text = f"RelativeProjection; the weights of the curves have no bias{more}"
        own.differ("use_rel_proj_pos_bias", text, exact=causal)
        found.append(make_class("RelativeProjection", num_curves=curves, num_distances=distances))
    if own.get("use_cope"):
        if causal:
            if adds_bias(layers, own) or any(own.get(each) for each in COUNTED):
                own.differ("use_cope", "Contextual; gates read the product of query and key, of tokens only")
            found.append(make_class("Contextual", max_position=own.get("cope_max_pos")))
        else:
            own.miss("use_cope", "Contextual counts back from each query, so it serves causal attention only")
    return found
