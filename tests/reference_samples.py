"""A value of each option of x-transformers that is not its default, with the options without which it says nothing."""

import pytest

from lightning_xt.commands.x_transformers.reference_options import PREFIXES, REQUIRED, read_defaults, read_kinds

WITH = {
    "only_cross": "cross_attend=True",
    "dynamic_tanh_init_alpha": "use_dynamic_tanh=True",
    "dim_condition": "use_adaptive_rmsnorm=True",
    "adaptive_condition_mlp": "use_adaptive_rmsnorm=True",
    "adaptive_condition_mlp_expansion": "use_adaptive_rmsnorm=True, adaptive_condition_mlp=True",
    "alibi_num_heads": "alibi_pos_bias=True",
    "rel_pos_num_buckets": "rel_pos_bias=True",
    "rel_pos_max_distance": "rel_pos_bias=True",
    "dynamic_pos_bias_log_distance": "dynamic_pos_bias=True",
    "dynamic_pos_bias_mlp_depth": "dynamic_pos_bias=True",
    "dynamic_pos_bias_norm": "dynamic_pos_bias=True",
    "rotary_emb_dim": "rotary_pos_emb=True",
    "rotary_interpolation_factor": "rotary_pos_emb=True",
    "rotary_base_rescale_factor": "rotary_pos_emb=True",
    "rotate_num_heads": "rotary_pos_emb=True",
    "rotary_xpos_scale_base": "rotary_xpos=True, rotary_emb_dim=64",
    "polar_bias_uniform_init": "polar_pos_emb=True",
    "cross_residual_attn": "cross_attend=True",
    "layerscale_init_value": "use_layerscale=True",
    "layer_integrate_use_softmax": "integrate_layers=True",
    "learned_reinject_input_gate": "reinject_input=True",
    "learned_value_residual_mix": "add_value_residual=True",
    "hyper_conn_sinkhorn_iters": "num_residual_streams=2",
    "softclamp_output_value": "softclamp_output=True",
    "attn_aggregated_residual_kwargs": "attn_aggregated_residuals=True",
    "attn_sparse_topk_straight_through": "attn_sparse_topk=3",
    "attn_gate_values_rank": "attn_gate_values=True",
    "attn_gate_values_headwise": "attn_gate_values=True",
    "attn_swiglu_values": "attn_gate_values=True",
    "attn_output_gate_rank": "attn_output_gate=True",
    "attn_output_gate_headwise": "attn_output_gate=True",
    "attn_low_rank_silu_gates": "attn_gate_values=True, attn_gate_values_rank=4",
    "attn_qk_norm_groups": "attn_qk_norm=True",
    "attn_qk_norm_scale": "attn_qk_norm=True",
    "attn_qk_norm_dim_scale": "attn_qk_norm=True",
    "attn_gumbel_softmax_temp": "attn_gumbel_softmax=True",
    "attn_gumbel_softmax_hard": "attn_gumbel_softmax=True",
    "attn_data_dependent_alibi_kwargs": "attn_data_dependent_alibi=True",
    "attn_data_dependent_alibi_per_row": "attn_data_dependent_alibi=True",
    "attn_rel_proj_num_distance_basis": "attn_use_rel_proj_pos_bias=True",
    "attn_rel_proj_max_dist": "attn_use_rel_proj_pos_bias=True",
    "attn_cope_max_pos": "attn_use_cope=True",
    "attn_logit_softclamp_value": "attn_softclamp_logits=True",
    "attn_laser_softclamp_value": "attn_laser=True",
    "attn_dim_latent_kv": "attn_use_latent_kv=True",
    "attn_dim_latent_q": "attn_use_latent_q=True, attn_use_latent_kv=True, attn_dim_latent_kv=8",
    "attn_use_latent_q": "attn_use_latent_kv=True, attn_dim_latent_kv=8, attn_dim_latent_q=8",
    "ff_glu_mult_bias": "ff_glu=True",
    "ff_glu_softclamp": "ff_glu=True, ff_swish=True",
    "ff_glu_gate_softclamp_value": "ff_glu=True, ff_swish=True, ff_glu_softclamp=True",
    "ff_glu_up_softclamp_value": "ff_glu=True, ff_swish=True, ff_glu_softclamp=True",
    "tie_embedding_scale": "tie_embedding=True",
    "max_looped_steps": "looped=True",
    "train_max_recycle_steps": "recycling=True",
    "shift_mem_down": "max_mem_len=4",
    "mixture_of_softmax_k": "mixture_of_softmax=True",
}
"""Options without which another says nothing; those of layers stand in the layers."""
VALUES = {
    "custom_layers": ("a", "f", "f"),
    "layers_execute_order": (0, 1, 0, 1, 2, 3),
    "rotary_emb_dim": 16,
    "rotate_num_heads": 2,
    "sandwich_coef": 1,
    "par_ratio": 4,
    "alibi_num_heads": 2,
    "rel_pos_kwargs": {"slopes": (0.5, 0.25, 0.1, 0.0)},
    "emb_frac_gradient": 0.5,
    "attn_qk_norm_groups": 2,
    "attn_kv_heads": 2,
    "layer_dropout": 0.1,
    "pad_value": 3,
    "embed_num_tokens": {"type": 2},
    "data_dependent_alibi_kwargs": {"bias_init": 1.0},
    "mask_prob": 0.2,
}
"""Values where another one than the next would make no sense."""


def choose_value(option: str, owner: str) -> object:
    """Return a value of an option, which is typed with its prefix, that is not the default."""
    name = option.removeprefix({"Attention": "attn_", "FeedForward": "ff_"}.get(owner, ""))
    if (value := VALUES.get(option, VALUES.get(name))) is not None:
        return value
    default = read_defaults()[owner][name]
    kind = read_kinds().get(name, type(default).__name__)
    if kind in ("bool", "any") or isinstance(default, bool):
        return not default
    if kind in ("dict", "str", "NoneType"):
        return {"dict": {"key": 1}, "str": "mask"}.get(kind, 5)
    number = 0 if default is None else default
    return number + 2 if kind == "int" else 0.25 if "dropout" in name else number + 1.0


OWNERS = ("AttentionLayers", "Attention", "FeedForward", "TransformerWrapper", "AutoregressiveWrapper")
SIZES = {"dim", "depth", "heads", "causal", "num_tokens", "max_seq_len", "attn_layers", "net"}
"""Options that every model has, or that the class says."""


def list_samples() -> list[object]:
    """List owner, option as typed, value and further options, for every option but the sizes."""
    found = []
    for owner in OWNERS:
        for name in read_defaults()[owner].keys() - SIZES:
            option = PREFIXES.get(owner, "") + name
            found.append(pytest.param(owner, option, choose_value(option, owner), WITH.get(option, ""), id=option))
    return sorted(found, key=lambda each: each.id)


def write_model(owner: str, options: str) -> str:
    """Return the text of a model with some options of one of its classes."""
    given = {each: f", {options}" if options and each == owner else "" for each in OWNERS}
    layers = "".join(given[each] for each in ("AttentionLayers", "Attention", "FeedForward"))
    # x-transformers refuses both, and a looped model without norms of the stream.
    layers += ", depth=2" if "custom_layers" not in layers else ""
    layers += ", pre_and_post_norm=True" if "looped=" in given["TransformerWrapper"] else ""
    wrapper = f"num_tokens=11, max_seq_len=32{given['TransformerWrapper']}"
    inner = f"TransformerWrapper({wrapper}, attn_layers=Decoder(dim=48, heads=4{layers}))"
    return f"AutoregressiveWrapper({inner}{given['AutoregressiveWrapper']})"


def read_signatures() -> dict[str, dict[str, object]]:
    """Read the defaults of x-transformers, as they are stored."""
    import inspect

    import x_transformers
    from x_transformers import x_transformers as module

    kinds = [module.AttentionLayers, module.Attention, module.FeedForward, module.TransformerWrapper]
    kinds += [x_transformers.AutoregressiveWrapper, x_transformers.XLAutoregressiveWrapper, module.XTransformer]
    found = {}
    for kind in kinds:
        parameters = [p for p in inspect.signature(kind.__init__).parameters.values() if p.kind is not p.VAR_KEYWORD]
        defaults = {p.name: REQUIRED if p.default is p.empty else p.default for p in parameters if p.name != "self"}
        # YAML has no tuples.
        defaults = {name: list(each) if isinstance(each, tuple) else each for name, each in defaults.items()}
        found[kind.__name__] = defaults
    return found


def build_theirs(text: str) -> object:
    """Return the model of x-transformers; None if x-transformers refuses it."""
    import x_transformers

    # The texts of these tests.
    names = {each: getattr(x_transformers, each) for each in ("TransformerWrapper", "Decoder", "AutoregressiveWrapper")}
    try:
        return eval(text if "verbose" in text else text.replace("Decoder(", "Decoder(verbose=False, "), names).net
    except (AssertionError, RuntimeError, TypeError):
        return None
