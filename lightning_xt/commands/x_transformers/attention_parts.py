"""Attention, from the options with the prefix attn_ or cross_attn_."""

from collections.abc import Mapping
from typing import Any

from lightning_xt.commands.x_transformers.given_options import Given, make_class
from lightning_xt.commands.x_transformers.norm_parts import choose_k_norm, choose_qk_norm, make_rms_norm
from lightning_xt.commands.x_transformers.output_parts import choose_output_mods, choose_output_projection
from lightning_xt.commands.x_transformers.position_parts import adds_bias, choose_position

SELF_ONLY = ("selective", "use_cope", "data_dependent_alibi", "use_rel_proj_pos_bias", "orthog_projected_values",
             "orthog_projected_values_per_head", "max_attend_past", "use_latent_kv", "use_latent_q")  # fmt: skip
"""Options of self-attention, which cross-attention does not inherit."""
UNSEEN = (
    "flash",
    "heads",
    "causal",
    "qkv_receive_diff_residuals",
    "learned_value_residual_mix",
    "output_proj_depth",
    "low_rank_silu_gates",
    "rotate_num_heads",
    "sublayer_dropout",
    "zero_init_output",
)
"""Options that the layers give, that others have read, or that change no result."""


def build_attention(layers: Given, own: Given, *, causal: bool, deep: bool) -> dict[str, Any]:
    """Return the options of self-attention.

    Args:
        layers: options of the stack.
        own: options of the attention.
        causal: True if tokens see only earlier ones.
        deep: True if there is more than one layer.
    """
    options = _choose_sizes(layers, own)
    options["position"] = choose_position(layers, own, causal=causal)
    options |= _choose_middle(layers, own, residual="residual_attn", deep=deep)
    if own.get("selective"):
        if causal:
            changing = ("use_cope", "softclamp_logits", "pre_talking_heads", "l2_distance")
            if adds_bias(layers, own) or layers.get("residual_attn") or any(own.get(each) for each in changing):
                own.differ("selective", "Selective; it reads the product of query and key, changed by nothing else")
            options["score_mods"].append("Selective")
        else:
            own.miss("selective", "Selective adds up over earlier queries, so it serves causal attention only")
    options["value_mods"] = _choose_value_mods(layers, own, "learned" if deep else None)
    if own.get("inverted_attention"):
        own.miss("inverted_attention", "x-transformers reads it in cross-attention only; set normalizer: Inverted")
    if own.has("dim_context"):
        own.miss("dim_context", "it is of cross-attention: cross_attn_dim_context")
    if own.has("max_attend_past"):
        if not causal:
            own.differ("max_attend_past", "the window bounds later tokens too; earlier ones only there")
        options["window"] = own.get("max_attend_past") + 1
    _finish(own)
    return options


def build_cross_attention(layers: Given, own: Given, *, deep: bool) -> dict[str, Any]:
    """Return the options of cross-attention; see `build_attention`."""
    options = _choose_sizes(layers, own)
    # Keys are rotated there only if a forward gives their positions.
    options["position"] = None
    options |= _choose_middle(layers, own, residual="cross_residual_attn", deep=deep)
    options["value_mods"] = _choose_value_mods(layers, own, "fixed" if deep else None)
    for option in SELF_ONLY:
        if own.is_own(option) and own.has(option):
            own.miss(option, "it is of self-attention; cross-attention has it not")
    if own.get("inverted_attention"):
        own.miss("inverted_attention", "the weights of a token would depend on later ones; Inverted is of encoders")
    own.get("dim_context")
    _finish(own)
    return options


def _choose_sizes(layers: Given, own: Given) -> dict[str, Any]:
    heads = own.get("heads") if own.is_own("heads") else layers.get("heads")
    options: dict[str, Any] = {"heads": heads, "dim_head": own.get("dim_head")}
    if own.get("one_kv_head"):
        options["kv_heads"] = 1
    if own.has("kv_heads"):
        options["kv_heads"] = own.get("kv_heads")
    if own.has("value_dim_head"):
        options["value_dim"] = own.get("value_dim_head")
    projection = _choose_projection(own, heads, options.get("kv_heads", heads))
    if projection is not None:
        options["projection"] = projection
    options["qk_norm"], options["k_norm"] = choose_qk_norm(own, options["dim_head"]), choose_k_norm(own)
    if own.get("project_out") is False or (heads == 1 and own.get("project_out") is None):
        own.differ("project_out", "one head is mapped too, by one linear map to the stream")
    return options


def _choose_projection(own: Given, heads: int, kv_heads: int) -> Any:
    latent_q, latent_kv = own.get("dim_latent_q"), own.get("dim_latent_kv")
    own.get("latent_rope_subheads")
    if not own.get("use_latent_kv") or own.crosses:
        if own.get("use_latent_q") and not own.crosses:
            own.miss("use_latent_q", "Latent compresses queries only next to keys and values: set attn_use_latent_kv")
        return None
    if kv_heads != heads:
        own.miss("use_latent_kv", "Latent makes keys and values for every head, so kv_heads must be heads")
        return None
    options = {"latent_dim": latent_kv}
    if own.get("use_latent_q"):
        options["query_latent_dim"] = latent_q
    remark = "the latents are normed, and half of each head's width is added as rotated features that all heads share"
    return own.choose("use_latent_kv", "Latent", remark, **options)


def _choose_middle(layers: Given, own: Given, *, residual: str, deep: bool) -> dict[str, Any]:
    """Return the options that score, weigh and gather, alike in both kinds of attention."""
    options: dict[str, Any] = {"score_mods": _choose_score_mods(layers, own, residual, deep=deep)}
    if own.get("l2_distance"):
        if own.get("add_zero_kv"):
            own.differ(
                "add_zero_kv", "QuietSoftmax; the score of the extra key is 0, minus the query's length squared there"
            )
        options["score"] = "NegativeDistance"
    options |= {"normalizer": choose_normalizer(own), "output_mods": choose_output_mods(own)}
    options["output_projection"] = choose_output_projection(own)
    options |= {"memory": own.get("num_mem_kv"), "dropout": float(own.get("dropout"))}
    if options["memory"] and own.get("qk_norm"):
        own.differ("num_mem_kv", "learned keys are not normed by qk_norm", exact=True)
    return options


def _choose_score_mods(layers: Given, own: Given, residual: str, *, deep: bool) -> list[Any]:
    found, biased = [], not own.crosses and adds_bias(layers, own)
    if layers.get(residual):
        if residual == "cross_residual_attn":
            layers.miss(residual, "ResidualScores serves self-attention only")
        elif not deep:
            layers.miss(residual, "there is one layer, whose scores have none before them")
        else:
            if biased or own.get("use_cope") or own.get("cog_signed"):
                layers.differ(
                    residual, "ResidualScores; biases and sizes of scores are not handed on, as they are there"
                )
            found.append("ResidualScores")
    before, after = own.get("pre_talking_heads"), own.get("post_talking_heads")
    if before or after:
        only = {"mix_scores": False} if not before else {"mix_weights": False} if not after else {}
        found.append(make_class("TalkingHeads", **only))
    if own.get("softclamp_logits"):
        if biased:
            own.differ("softclamp_logits", "SoftCap; scores are bounded before the bias of a position is added")
        found.append(make_class("SoftCap", cap=float(own.get("logit_softclamp_value"))))
    return found


def choose_normalizer(own: Given) -> Any:
    """Return the normalizer of attention."""
    makers: Mapping[str, Any] = {
        "sigmoid": lambda: own.choose(
            "sigmoid",
            "Sigmoid",
            "an offset of null is the paper's; 0 is that of x-transformers",
            exact=True,
            offset=0.0,
        ),
        "hard": lambda: "Hard",
        "sparse_topk": lambda: make_class(
            "TopKSoftmax",
            num_keys=own.get("sparse_topk"),
            straight_through=own.get("sparse_topk_straight_through"),
        ),
        "gumbel_softmax": lambda: own.choose(
            "gumbel_softmax",
            "GumbelSoftmax",
            "",
            temperature=float(own.get("gumbel_softmax_temp")),
            hard=own.get("gumbel_softmax_hard"),
        ),
        "cog_signed": lambda: "Signed",
        "head_learned_sink": lambda: "SinkSoftmax",
        "add_zero_kv": lambda: "QuietSoftmax",
    }
    chosen = [option for option in makers if own.has(option)]
    for option in chosen[1:]:
        own.miss(option, f"attention has one normalizer, which {own.type(chosen[0])} chooses")
    return makers[chosen[0]]() if chosen else "Softmax"


def _choose_value_mods(layers: Given, own: Given, residual: str | None) -> list[Any]:
    """Return the value mods; the residual's mix is learned or fixed, or None if there is no other layer."""
    found = []
    learned = layers.get("learned_value_residual_mix")
    if layers.get("add_value_residual"):
        if residual is None:
            layers.miss("add_value_residual", "there is one layer, and no values before it")
        elif residual == "learned" and learned:
            found.append("ValueResidual")
        else:
            found.append(make_class("WeightedValueResidual", own_weight=0.5, first_weight=0.5, learned=False))
    if own.get("value_rmsnorm"):
        own.differ("value_rmsnorm", "all heads share the gains", exact=True)
        found.append(make_class("ValueNorm", norm=make_rms_norm()))
    if own.get("laser"):
        found.append(make_class("Laser", cap=float(own.get("laser_softclamp_value"))))
    return found


def _finish(own: Given) -> None:
    """Remark what else is given."""
    for option in UNSEEN:
        own.get(option)
    own.miss_unread()
